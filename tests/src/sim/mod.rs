//! Boxes that are only played.
