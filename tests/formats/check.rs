//! What `forebay check` finds.
