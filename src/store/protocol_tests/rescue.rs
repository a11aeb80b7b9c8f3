//! The rescue protocol.
