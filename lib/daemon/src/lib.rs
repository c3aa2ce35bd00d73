//! keelson-daemon
