//! keelson-client
