# What the board.mk of a Quectel module has in common. QuecPython's firmware can't be built here, for it takes Quectel's
# SDK: `make` builds what such a build takes, in build/BOARD/package, as QuecPython's build of 2026 would (Makefile).
#
# A board adds
#   UMQTT_TARGET    Rust's name of the processor, which settles the float ABI
#   MACHINE         the C compiler's flags for the same
#   ELF             what `readelf -A` has to say of every object: tag=value..., with - for a tag that has to be absent
#   UMQTT_...       a client's sizes (build.rs), and the internal thread's stack in bytes. That QuecPython of 2021 counts
#                   the stack in words is known to compat.h; another unit would be UMQTT_STACK_UNIT
PORT_DIR  = $(CURDIR)/boards/quectel
PROG      = package
PORT_ARGS = MPY_DIR=$(MPY_DIR) BOARD_MK=$(BOARD_DIR)/board.mk
NEEDS     = gcc-arm-none-eabi libnewlib-arm-none-eabi
RUNS      =

UMQTT_OPT_LEVEL?= z
UMQTT_THREADS  ?= 1
# Bytes of flash, of a client's RAM without its buffers, and of stack: what there is now. The goal is in docs/firmware.md.
BUDGET = engine=10900 flash=21850 client=1024 stack=3072
