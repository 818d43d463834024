# The module umqtt for MicroPython's ports that are built with CMake (rp2, esp32):
# USER_C_MODULES=<this file> is all they need. micropython.mk says what may be set; here the environment is looked at, and
# CMake's own variables (-DUMQTT_TARGET=...) first. What is empty is not said.

foreach(name CARGO UMQTT_TARGET UMQTT_OPT_LEVEL UMQTT_RX_BUFFER UMQTT_TX_BUFFER UMQTT_IN_FLIGHT UMQTT_KEPT
        UMQTT_THREADS UMQTT_THREAD_STACK UMQTT_STACK_UNIT UMQTT_RUSTFLAGS UMQTT_CARGO_FLAGS)
    if(NOT DEFINED ${name} AND NOT "$ENV{${name}}" STREQUAL "")
        # A makefile keeps the space in front of a comment.
        string(STRIP "$ENV{${name}}" UMQTT_SAID)
        set(${name} "${UMQTT_SAID}" CACHE STRING "See micropython.mk")
    endif()
endforeach()
if(CMAKE_CROSSCOMPILING AND NOT UMQTT_TARGET)
    message(FATAL_ERROR "umqtt: UMQTT_TARGET must say Rust's name for the machine, such as thumbv6m-none-eabi")
endif()
find_program(CARGO cargo PATHS $ENV{HOME}/.cargo/bin REQUIRED)

get_filename_component(UMQTT_ROOT ${CMAKE_CURRENT_LIST_DIR}/../.. REALPATH)
set(UMQTT_BUILD ${CMAKE_BINARY_DIR}/umqtt-engine)
set(UMQTT_LIB ${UMQTT_BUILD}/release/libumqtt.a)
if(UMQTT_TARGET)
    set(UMQTT_LIB ${UMQTT_BUILD}/${UMQTT_TARGET}/release/libumqtt.a)
endif()

set(UMQTT_ENVIRONMENT)
foreach(name UMQTT_RX_BUFFER UMQTT_TX_BUFFER UMQTT_IN_FLIGHT UMQTT_KEPT UMQTT_THREADS)
    if(NOT "${${name}}" STREQUAL "")
        list(APPEND UMQTT_ENVIRONMENT ${name}=${${name}})
    endif()
endforeach()
if(UMQTT_OPT_LEVEL)
    list(APPEND UMQTT_ENVIRONMENT CARGO_PROFILE_RELEASE_OPT_LEVEL=${UMQTT_OPT_LEVEL})
endif()
if(UMQTT_RUSTFLAGS)
    list(APPEND UMQTT_ENVIRONMENT RUSTFLAGS=${UMQTT_RUSTFLAGS})
endif()
separate_arguments(UMQTT_MORE UNIX_COMMAND "${UMQTT_CARGO_FLAGS}")

# Always run: cargo decides what is stale. The library is made of the one object that engine-object leaves.
set(UMQTT_ENGINE ${UMQTT_BUILD}/libumqtt-engine.a)
add_custom_target(umqtt_cargo
    COMMAND ${CMAKE_COMMAND} -E env ${UMQTT_ENVIRONMENT}
        CARGO=${CARGO} ${UMQTT_ROOT}/tools/cargo-for "${UMQTT_TARGET}"
        rustc --quiet --lib --release --crate-type staticlib --features archive --target-dir ${UMQTT_BUILD} ${UMQTT_MORE}
    COMMAND ${UMQTT_ROOT}/tools/engine-object ${CMAKE_AR} ${CMAKE_OBJCOPY} ${UMQTT_LIB} ${UMQTT_BUILD}/engine.o
    COMMAND ${CMAKE_AR} crsD ${UMQTT_ENGINE}.new ${UMQTT_BUILD}/engine.o
    COMMAND ${CMAKE_COMMAND} -E copy_if_different ${UMQTT_ENGINE}.new ${UMQTT_ENGINE}
    WORKING_DIRECTORY ${UMQTT_ROOT}
    BYPRODUCTS ${UMQTT_ENGINE}
    COMMENT "CARGO ${UMQTT_LIB}"
    VERBATIM
)

add_library(umqtt_engine STATIC IMPORTED GLOBAL)
set_target_properties(umqtt_engine PROPERTIES IMPORTED_LOCATION ${UMQTT_ENGINE})
add_dependencies(umqtt_engine umqtt_cargo)

add_library(usermod_umqtt INTERFACE)
target_sources(usermod_umqtt INTERFACE
    ${CMAKE_CURRENT_LIST_DIR}/modumqtt.c
    ${CMAKE_CURRENT_LIST_DIR}/core.c
    ${CMAKE_CURRENT_LIST_DIR}/link.c
    ${CMAKE_CURRENT_LIST_DIR}/outcome.c
    ${CMAKE_CURRENT_LIST_DIR}/port.c
)
foreach(name UMQTT_THREADS UMQTT_THREAD_STACK UMQTT_STACK_UNIT)
    if(NOT "${${name}}" STREQUAL "")
        target_compile_definitions(usermod_umqtt INTERFACE ${name}=${${name}})
    endif()
endforeach()
target_link_libraries(usermod_umqtt INTERFACE umqtt_engine)

target_link_libraries(usermod INTERFACE usermod_umqtt)
