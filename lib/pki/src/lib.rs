//! keelson-pki
