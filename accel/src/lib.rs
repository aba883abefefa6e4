//! stele-accel.
