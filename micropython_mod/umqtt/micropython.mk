# The module umqtt for MicroPython's ports that are built with make: USER_C_MODULES=<here>/.. is all they need.
#
# The C sources are compiled by the port like its own. The engine comes from cargo, as a static archive; one object made
# of it joins the port's objects, because ports differ in where they let a library into the link (some nowhere). Where
# that object lies beside this file as umqtt.o, it is taken as it is, and no Rust is needed.
#
# What may be set, in the environment or on make's command line:
#   UMQTT_TARGET      Rust's name for the machine, such as thumbv7m-none-eabi; the one that this runs on, if not set.
#                     tools/cargo-for finds a toolchain for it
#   UMQTT_OPT_LEVEL   Rust's opt-level, such as z for small flash; the C sources are then compiled as the port's own are.
#                     If not set, both are compiled for speed: opt-level 3, and -O2. Beside umqtt.o, C is compiled as the
#                     port's own in any case
#   UMQTT_RX_BUFFER, UMQTT_TX_BUFFER, UMQTT_IN_FLIGHT, UMQTT_KEPT   a client's sizes: see build.rs
#   UMQTT_THREADS     1 or 0 if the port has threads, or none, for an engine without the code for the other case; if not
#                     set, what the port's makefiles say of MICROPY_PY_THREAD
#   UMQTT_THREAD_STACK  bytes of the internal thread's stack: see core.h
#   UMQTT_STACK_UNIT  how many bytes the port's _thread.stack_size() counts as one, if compat.h does not know it
#   UMQTT_RUSTFLAGS   how to generate code, such as -Ctarget-feature=...: cargo's RUSTFLAGS for this build
#   UMQTT_CARGO_FLAGS more arguments for cargo rustc
#   CARGO             cargo, if it is neither on the PATH nor where rustup puts it

# A makefile keeps the space in front of a comment.
$(foreach name,UMQTT_TARGET UMQTT_OPT_LEVEL,$(eval override $(name) := $(strip $($(name)))))
UMQTT_MOD_DIR := $(USERMOD_DIR)
UMQTT_ROOT    := $(realpath $(UMQTT_MOD_DIR)/../..)
UMQTT_BUILD   := $(abspath $(BUILD))/umqtt-engine
UMQTT_LIB     := $(UMQTT_BUILD)/$(if $(UMQTT_TARGET),$(UMQTT_TARGET)/)release/libumqtt.a
UMQTT_OBJ     := $(or $(wildcard $(UMQTT_MOD_DIR)/umqtt.o),$(BUILD)/umqtt-engine/engine.o)

UMQTT_THREADS ?= $(MICROPY_PY_THREAD)
CARGO ?= $(or $(shell command -v cargo 2>/dev/null),$(wildcard ~/.cargo/bin/cargo),cargo)

# All of MicroPython's versions know SRC_USERMOD. Those that have SRC_USERMOD_C as well add the one to the other: named
# in both, a source would be compiled and linked twice.
UMQTT_SOURCES := $(wildcard $(UMQTT_MOD_DIR)/*.c)
SRC_USERMOD += $(UMQTT_SOURCES)
UMQTT_C_SETTINGS := UMQTT_THREADS UMQTT_THREAD_STACK UMQTT_STACK_UNIT
UMQTT_DEFINES := $(foreach name,$(UMQTT_C_SETTINGS),$(if $($(name)),-D$(name)='($($(name)))'))
CFLAGS_USERMOD += $(UMQTT_DEFINES)
C_FLAGS_USERMOD += $(UMQTT_DEFINES)
UMQTT_C_OPT := $(if $(UMQTT_OPT_LEVEL)$(DEBUG)$(wildcard $(UMQTT_MOD_DIR)/umqtt.o),,-O2)
$(BUILD)/umqtt/%.o: CFLAGS += $(UMQTT_C_OPT)
# MicroPython's makefiles do not notice that flags have changed.
UMQTT_FLAGS := $(strip $(UMQTT_DEFINES) $(UMQTT_C_OPT) $(CFLAGS_EXTRA))
ifneq ($(strip $(file <$(UMQTT_BUILD)/flags)),$(UMQTT_FLAGS))
$(shell mkdir -p $(UMQTT_BUILD); rm -f $(patsubst $(UMQTT_MOD_DIR)/%.c,$(BUILD)/umqtt/%.o,$(UMQTT_SOURCES)))
$(file >$(UMQTT_BUILD)/flags,$(UMQTT_FLAGS))
endif

# The unix port raises KeyboardInterrupt from inside a signal handler, which must not happen inside the engine: port.c
# stands between the two.
ifeq ($(abspath .) $(shell uname -s),$(abspath $(TOP)/ports/unix) Linux)
LDFLAGS_USERMOD += -Wl,--wrap=mp_hal_set_interrupt_char
endif

# Cargo decides what is stale, so it always runs. It leaves an archive alone that has not changed, and then make links
# nothing anew. It runs in the project's folder to find the project's settings; the + shares make's job slots with it.
$(UMQTT_LIB): FORCE
	$(ECHO) "CARGO $@"
	$(if $(wildcard $(UMQTT_ROOT)/tools/cargo-for),,$(error umqtt: neither umqtt.o nor the project is where \
	  $(UMQTT_MOD_DIR) is: link to that folder, do not copy it))
	$(if $(UMQTT_TARGET),,$(if $(CROSS_COMPILE),$(error umqtt: UMQTT_TARGET must say Rust's name for the machine, such as \
	  thumbv7m-none-eabi)))
	+$(Q)cd $(UMQTT_ROOT) && \
	  $(foreach name,UMQTT_RX_BUFFER UMQTT_TX_BUFFER UMQTT_IN_FLIGHT UMQTT_KEPT UMQTT_THREADS,$(if $($(name)),$(name)='$($(name))')) \
	  $(if $(UMQTT_OPT_LEVEL),CARGO_PROFILE_RELEASE_OPT_LEVEL='$(UMQTT_OPT_LEVEL)') \
	  $(if $(UMQTT_RUSTFLAGS),RUSTFLAGS='$(UMQTT_RUSTFLAGS)') \
	  CARGO='$(CARGO)' tools/cargo-for '$(UMQTT_TARGET)' rustc --quiet --lib --release --crate-type staticlib \
	  --features archive --target-dir $(UMQTT_BUILD) $(UMQTT_CARGO_FLAGS)

$(BUILD)/umqtt-engine/engine.o: $(UMQTT_LIB) FORCE
	$(ECHO) "LINK $@"
	$(Q)$(UMQTT_ROOT)/tools/engine-object $(AR) $(OBJCOPY) $< $@

PY_O += $(UMQTT_OBJ)
# MicroPython before 1.20 sets PY_O anew after this; a program's link takes what the program depends on. The unix port calls
# it PROG; those for microcontrollers (stm32, mimxrt, nrf, samd) have a firmware.elf.
$(addprefix $(BUILD)/,$(sort $(PROG) firmware.elf)): $(UMQTT_OBJ)
# QuecPython's build of 2026 makes an archive of OBJ, and links nothing.
ifneq ($(QUEC_SRC_MOD),)
OBJ += $(patsubst $(USER_C_MODULES)/%.c,$(BUILD)/%.o,$(SRC_USERMOD)) $(UMQTT_OBJ)
endif
