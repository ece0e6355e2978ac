# SPDX-License-Identifier: MIT
# Freestanding x86-64 with the host's compiler: no red zone (interrupts use the stack), no FPU or SIMD (it belongs to guests).
set(CMAKE_SYSTEM_NAME Generic)
set(CMAKE_SYSTEM_PROCESSOR x86_64)
set(CMAKE_TRY_COMPILE_TARGET_TYPE STATIC_LIBRARY)

set(HV_KERNEL ON)
# -fbuiltin: a memcpy() of a few bytes becomes a move; the kernel supplies the functions themselves (arch/x86_64/cpu/memory.S).
set(HV_MACHINE_FLAGS -ffreestanding -fbuiltin -fno-pic -fno-pie -mno-red-zone -mcmodel=kernel -fno-omit-frame-pointer
    -fno-asynchronous-unwind-tables -fcf-protection=none -fno-strict-aliasing -falign-functions=1 -falign-loops=1
    -ffunction-sections -fdata-sections)
set(HV_MACHINE_CXX_FLAGS -fno-exceptions -fno-rtti -fno-threadsafe-statics -fno-use-cxa-atexit -fstack-protector-strong
    -mstack-protector-guard=global -D_GLIBCXX_ASSERTIONS)
