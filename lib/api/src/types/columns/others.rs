//! Columns of the remaining groups.
