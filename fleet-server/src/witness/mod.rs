//! A second, independent opinion on a suspect box.
