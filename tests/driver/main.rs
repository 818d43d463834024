//! The driver: the calls of the API over a scripted network, with every byte compared.

mod bytes;
mod connect;
mod memory;
mod nal;
mod net;
mod random;
mod receive;
mod resend;
mod send;
mod service;
mod session;
mod world;
