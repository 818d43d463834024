# Quectel EC200N and EC600N: ASR1603, Cortex-R5. NOT KNOWN: whether its firmware passes floats in FPU registers, and whether
# it lets unaligned access through. This takes the soft-float ABI and aligned access; the engine uses no floats, but objects
# of the two ABIs don't link. If the firmware's own objects say "Tag_ABI_VFP_args: VFP registers" (readelf -A), the other is
#   UMQTT_TARGET = armv7r-none-eabihf, MACHINE with -mfloat-abi=hard -mfpu=vfpv3-d16, ELF with ABI_VFP_args=VFP
include $(dir $(lastword $(MAKEFILE_LIST)))../quectel/common.mk
UMQTT_TARGET = armv7r-none-eabi
# Thumb code takes a third less flash than this target's own, and calls the firmware's ARM code as well.
UMQTT_RUSTFLAGS = -Ctarget-feature=+thumb-mode,+strict-align
MACHINE      = -mcpu=cortex-r5 -mfloat-abi=soft -mthumb -mno-unaligned-access
ELF          = CPU_arch=v7 CPU_arch_profile=Realtime ABI_VFP_args=- CPU_unaligned_access=-

UMQTT_RX_BUFFER   ?= 2048
UMQTT_TX_BUFFER   ?= 2048
UMQTT_KEPT        ?= 16384
UMQTT_THREAD_STACK ?= 32768
