//! keelson-testkit
