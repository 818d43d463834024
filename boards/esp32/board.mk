# ESP32-C3: RISC-V (rv32imc), which Rust's own compiler knows. The older ESP32, S2 and S3 are Xtensa: for those, cargo has to be
# Espressif's fork. With ESP-IDF (IDF_PATH) and a MicroPython checkout that has its submodules, this builds MicroPython's
# port esp32; without, the module alone, by boards/cmake.
PORT_DIR  = $(if $(IDF_PATH),$(MPY_DIR)/ports/esp32,$(CURDIR)/boards/cmake)
MODULES_FILE = /umqtt/micropython.cmake
PROG     := $(if $(IDF_PATH),micropython.elf,firmware.elf)
PORT_ARGS = BOARD=ESP32_GENERIC_C3 CMAKE_ARGS='-DUMQTT_TARGET=riscv32imc-unknown-none-elf -DUMQTT_OPT_LEVEL=s \
  -DUMQTT_RX_BUFFER=2048 -DUMQTT_TX_BUFFER=2048 -DUMQTT_KEPT=16384 -DUMQTT_THREAD_STACK=8192 $(if $(IDF_PATH),,\
  -DMICROPY_DIR=$(MPY_DIR) -DCROSS_COMPILE=riscv64-unknown-elf- -DLIBC=--specs=picolibc.specs \
  "-DMACHINE=-march=rv32imc -mabi=ilp32 -misa-spec=2.2")'
NEEDS     = cmake gcc-riscv64-unknown-elf picolibc-riscv64-unknown-elf
RUNS      =
BUDGET    = client=1024 stack=3072
