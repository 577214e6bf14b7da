//! The content encodings of request bodies.

use forebay_reading::registry::Registry;

/// The supported content encodings, by their names in HTTP.
pub(super) const ENCODINGS: Registry<Encoding> = Registry {
    what: "content encoding",
    members: &[
        ("identity", Encoding::Identity),
        ("gzip", Encoding::Gzip),
        ("deflate", Encoding::Deflate),
        ("zstd", Encoding::Zstd),
    ],
};

/// How a body is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    Identity,
    Gzip,
    Deflate,
    Zstd,
}

impl Encoding {
    pub(super) fn name(self) -> &'static str {
        ENCODINGS.members.iter().find(|(_, encoding)| *encoding == self).map_or("", |(name, _)| name)
    }
}
