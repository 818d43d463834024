# Quectel EC600E and EC800E: EC618, Cortex-M3. It has no FPU: floats go in integer registers.
include $(dir $(lastword $(MAKEFILE_LIST)))../quectel/common.mk
UMQTT_TARGET = thumbv7m-none-eabi
MACHINE      = -mcpu=cortex-m3 -mthumb -mfloat-abi=soft
ELF          = CPU_arch=v7 CPU_arch_profile=Microcontroller ABI_VFP_args=- CPU_unaligned_access=v6

UMQTT_RX_BUFFER   ?= 1024
UMQTT_TX_BUFFER   ?= 1024
UMQTT_KEPT        ?= 8192
UMQTT_THREAD_STACK ?= 8192
