//! CEL
