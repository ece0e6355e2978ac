// SPDX-License-Identifier: MIT
// For the emulator's parts: the way out of a step that did not succeed.
#pragma once

#include "vmm/x86/operand_memory.hpp"

/// Leaves the function unless the step succeeded.
#define HV_STEP(expression)                                                                                  \
    do {                                                                                                     \
        if (const ::hv::x86::Outcome hv_outcome = (expression); hv_outcome != ::hv::x86::Outcome::ok)        \
            [[unlikely]]                                                                                     \
            return hv_outcome;                                                                               \
    } while (false)
