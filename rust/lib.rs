//! An MQTT 3.1 and 3.1.1 client engine for devices without a heap to spare.
//!
//! `no_std`, no allocation, no panics on anything that comes from the wire, and generic over an
//! [`embedded_nal`] stack. `docs/architecture.md` shows how the layers fit together.

#![cfg_attr(not(test), no_std)]
#![deny(unsafe_code, missing_docs)]

pub mod calls;
pub mod client;
#[cfg(feature = "ffi")]
pub mod ffi;
pub mod memory;
pub mod packet;
pub mod service;
pub mod session;
pub mod time;
mod wire;

/// The build's sizes, see `build.rs`.
mod config {
    #![allow(dead_code)] // some are for the C ABI
    include!(concat!(env!("OUT_DIR"), "/config.rs"));

    /// May others wait while a call goes on? If not, there is nobody to tell what has happened.
    pub const OTHERS: bool = !matches!(THREADS, Some(false));
}
