//! keelson-proxy
