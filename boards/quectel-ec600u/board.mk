# Quectel EC600U and EG915U: Unisoc 8910, Cortex-A5, hard float, no unaligned access.
include $(dir $(lastword $(MAKEFILE_LIST)))../quectel/common.mk
UMQTT_TARGET = armv7a-none-eabihf
# Thumb code takes a third less flash than this target's own, and calls the firmware's ARM code as well.
UMQTT_RUSTFLAGS = -Ctarget-feature=+thumb-mode
MACHINE      = -mcpu=cortex-a5 -mfpu=vfpv3-d16 -mfloat-abi=hard -mthumb -mno-unaligned-access
ELF          = CPU_arch=v7 CPU_arch_profile=Application ABI_VFP_args=VFP CPU_unaligned_access=-

UMQTT_RX_BUFFER   ?= 2048
UMQTT_TX_BUFFER   ?= 2048
UMQTT_KEPT        ?= 16384
# QuecPython gives a thread no less.
UMQTT_THREAD_STACK ?= 32768
