//! keelson-apiserver
