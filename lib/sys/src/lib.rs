//! keelson-sys
