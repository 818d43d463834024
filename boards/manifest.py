# What is frozen into the firmware on every board. The module itself is C and Rust and is not in here.
include("$(MPY_DIR)/extmod/asyncio")
