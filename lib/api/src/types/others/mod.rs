//! Rules of the remaining groups.

use crate::schema::TypeId;
use crate::types::{GENERIC, Strategy};

/// The rules of a type of these groups.
pub fn strategy(_ty: TypeId) -> &'static Strategy {
    &GENERIC
}
