//! What requests to nodes carry to be let in: the headers of the settings, whose values may stand in files; and the secrets
//! that are hidden in every text of a node.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use http::{HeaderMap, HeaderName, HeaderValue};
use thiserror::Error;
use url::Url;

use super::secrets::Secrets;

/// Longest value of a header that is read from a file, in bytes, with its prefix. Servers refuse heads that are much longer:
/// nginx takes lines of 8 KiB.
pub const VALUE_BYTES_MAX: usize = 4096;

/// The headers that the settings add to every request.
#[derive(Clone, Debug, Default)]
pub struct HeadersConfig {
    /// Those whose values stand in the settings.
    pub fixed: HeaderMap,
    /// Those whose values stand in files.
    pub files: Vec<HeaderFile>,
}

/// A header whose value stands in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderFile {
    /// The name of the header.
    pub name: HeaderName,
    /// The file.
    pub path: PathBuf,
    /// Text before the value, such as `Bearer ` with its space; may be empty.
    pub prefix: String,
}

/// Why the content of a file cannot be the value of a header. The content is a secret and not shown.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum HeaderFileError {
    /// The file is empty.
    #[error("{}: is empty; it must have the value of the header `{name}`", path.display())]
    Empty {
        /// The header.
        name: HeaderName,
        /// The file.
        path: PathBuf,
    },
    /// The file is too long.
    #[error(
        "{}: the value of the header `{name}` would have {bytes} bytes; allowed are {VALUE_BYTES_MAX}",
        path.display()
    )]
    TooLong {
        /// The header.
        name: HeaderName,
        /// The file.
        path: PathBuf,
        /// The length of the value.
        bytes: usize,
    },
    /// The file has characters that no header may have.
    #[error(
        "{}: must have one line of visible ASCII, the value of the header `{name}`; a line feed at its end is left out",
        path.display()
    )]
    Invalid {
        /// The header.
        name: HeaderName,
        /// The file.
        path: PathBuf,
    },
}

impl HeaderFile {
    /// The value, with its prefix and without it.
    fn value(&self, content: &[u8]) -> Result<[HeaderValue; 2], HeaderFileError> {
        let (name, path) = (self.name.clone(), self.path.clone());
        let line = content.strip_suffix(b"\n").unwrap_or(content);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.trim_ascii().is_empty() {
            return Err(HeaderFileError::Empty { name, path });
        }
        let bytes = self.prefix.len() + line.len();
        if bytes > VALUE_BYTES_MAX {
            return Err(HeaderFileError::TooLong { name, path, bytes });
        }
        let is_visible = line.iter().all(|byte| byte.is_ascii_graphic() || *byte == b' ');
        let values = [[self.prefix.as_bytes(), line].concat(), line.to_vec()];
        let [whole, bare] = values.map(|bytes| HeaderValue::from_bytes(&bytes).ok());
        match (whole, bare) {
            (Some(mut whole), Some(bare)) if is_visible => {
                whole.set_sensitive(true);
                Ok([whole, bare])
            }
            _ => Err(HeaderFileError::Invalid { name, path }),
        }
    }
}

impl HeadersConfig {
    /// The files.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|file| file.path.as_path())
    }
}

/// What requests to nodes carry.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    headers: HeaderMap,
    /// The secret values of the headers: also values without their prefixes.
    values: HeaderMap,
    secrets: Arc<Secrets>,
}

/// The credentials that are in force. They are replaced when a file changes.
pub type CredentialsInForce = Arc<ArcSwap<Credentials>>;

impl Credentials {
    /// The credentials for nodes at `urls`, which may have passwords; `content` has that of each file of the headers.
    ///
    /// The values of `former` are hidden, too: nodes may still repeat what they were sent before.
    ///
    /// # Errors
    ///
    /// [`HeaderFileError`] for the first content that does not fit.
    pub fn new<'a, 'c>(
        urls: impl Iterator<Item = &'a Url>,
        config: &HeadersConfig,
        content: impl Fn(&Path) -> &'c [u8],
        former: &Credentials,
    ) -> Result<Credentials, HeaderFileError> {
        let (mut headers, mut values) = (config.fixed.clone(), config.fixed.clone());
        for file in &config.files {
            let [whole, bare] = file.value(content(&file.path))?;
            values.append(file.name.clone(), whole.clone());
            values.append(file.name.clone(), bare);
            headers.insert(file.name.clone(), whole);
        }
        let mut hidden = values.clone();
        for (name, value) in &former.values {
            hidden.append(name, value.clone());
        }
        let secrets = Arc::new(Secrets::of(urls, &hidden));
        Ok(Credentials { headers, values, secrets })
    }

    /// The headers.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// The secrets to hide.
    pub fn secrets(&self) -> &Arc<Secrets> {
        &self.secrets
    }
}

#[cfg(test)]
mod tests {
    use super::super::secrets::Extent;
    use super::*;

    fn config(prefix: &str) -> HeadersConfig {
        let file = |name: &'static str, path: &str, prefix: &str| HeaderFile {
            name: HeaderName::from_static(name),
            path: PathBuf::from(path),
            prefix: prefix.to_owned(),
        };
        let mut fixed = HeaderMap::new();
        fixed.insert("x-scope", HeaderValue::from_static("plant-seven"));
        HeadersConfig { fixed, files: vec![file("authorization", "secrets/token", prefix)] }
    }

    fn credentials(config: &HeadersConfig, content: &[u8]) -> Result<Credentials, String> {
        credentials_after(&Credentials::default(), config, content)
    }

    fn credentials_after(
        former: &Credentials,
        config: &HeadersConfig,
        content: &[u8],
    ) -> Result<Credentials, String> {
        Credentials::new([].iter(), config, |_| content, former).map_err(|error| error.to_string())
    }

    #[test]
    fn a_header_has_its_prefix_and_the_line_of_its_file() {
        for content in ["t0ken-of-old", "t0ken-of-old\n", "t0ken-of-old\r\n"] {
            let found = credentials(&config("Bearer "), content.as_bytes()).expect("it fits");
            let header = found.headers().get("authorization").expect("a header");
            assert_eq!(header, "Bearer t0ken-of-old");
            assert!(header.is_sensitive());
            assert_eq!(found.headers().get("x-scope").expect("a header"), "plant-seven");
        }
    }

    #[test]
    fn content_that_is_no_value_of_a_header_is_refused_and_not_shown() {
        let refused = |content: &[u8]| credentials(&config("Bearer "), content).expect_err("refused");
        let empty = "secrets/token: is empty; it must have the value of the header `authorization`";
        assert_eq!(refused(b""), empty);
        assert_eq!(refused(b"\n"), empty);
        assert_eq!(refused(b" \n"), empty);
        assert_eq!(
            refused(&[b'x'; VALUE_BYTES_MAX + 1]),
            "secrets/token: the value of the header `authorization` would have 4104 bytes; allowed are 4096"
        );
        for content in [&b"two\nlines"[..], b"\0", b"caf\xc3\xa9", b"tab\there", b"line\n\n"] {
            let expected = "secrets/token: must have one line of visible ASCII, the value of the header `authorization`; a \
                            line feed at its end is left out";
            assert_eq!(refused(content), expected);
        }
    }

    #[test]
    fn the_secret_is_hidden_with_and_without_its_prefix_and_after_it_was_replaced() {
        let config = config("Key=");
        let old = credentials(&config, b"t0ken-of-old\n").expect("it fits");
        let hidden = |credentials: &Credentials, text: &str| {
            credentials.secrets().hide(text, Extent::Whole).into_owned()
        };
        assert_eq!(hidden(&old, "who is t0ken-of-old of plant-seven?"), "who is *** of ***?");
        let new = credentials_after(&old, &config, b"t0ken-of-today").expect("it fits");
        assert_eq!(
            hidden(&new, "t0ken-of-old is gone, t0ken-of-today is there"),
            "*** is gone, *** is there"
        );
    }
}
