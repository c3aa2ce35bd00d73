//! What upstream's rules say of objects, as rows of data: validation, defaults, what is stored, and Table cells.
//!
//! A file under `rows/` is JSON lines. A line is one of
//!
//! * `{"base": NAME, "object": {…}}`: an object that rows below start from;
//! * `{"from": "FILE:TEST"}`: where upstream has the facts of the rows below;
//! * `{"on": NAME, "do": OPERATION, "set": {POINTER: VALUE}, …}`: a row.
//!
//! `set` changes the base: a JSON pointer and what lies there, `null` for nothing; an index
//! one past the end appends.
//! OPERATION and what else a row has:
//!
//! | operation | expected |
//! |---|---|
//! | `create` | `say` |
//! | `update`, `status` and other subresources | `say`; `old` changes the base into what was stored before, `set` works on that |
//! | `default` | `gives`: what the defaults add, change and (`null`) drop |
//! | `store` (a create that is well-formed) | `gives`: as above, after preparation too; `warn` |
//! | `cells` | `cells`: one row of the Table, wide columns too |
//! | `columns` | `columns`: name, type, format, priority and description of each |
//!
//! `say` lists the mistakes as `[path, reason, value, detail]`, in any order; `value` is as the message prints it, `null`
//! where upstream prints what its internal types look like and it is not compared. `warn` lists Warning headers.
//!
//! The text `now()` in an expected object is the time of the request. A detail that ends with a line's end is the first line
//! of a longer one.
//!
//! Expected values are upstream's own, none is made by the code under test.

pub mod rows;
pub mod run;

pub use rows::{Group, Row, load};
pub use run::{Outcome, check};
