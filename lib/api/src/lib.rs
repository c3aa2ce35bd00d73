//! keelson-api
