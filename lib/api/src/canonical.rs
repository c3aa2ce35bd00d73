//! Canonical forms of scalar texts: Quantity, Time, MicroTime, Duration, base64.
