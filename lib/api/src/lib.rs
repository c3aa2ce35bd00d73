//! keelson-api
pub mod field_errors;
pub mod fields_selector;
pub mod names;
pub mod quantity;
pub mod selectors;
pub mod status;
