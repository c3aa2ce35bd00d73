//! Container logs in CRI's format (`<time> <stream> <P|F> <text>`): reading for clients, rotation.
pub mod follow;
pub mod read;
pub mod rotate;
