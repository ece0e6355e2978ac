// SPDX-License-Identifier: MIT
// What runs_in() of every backend has to tell.
#pragma once

#include "arch/x86_64/defs/cr.hpp"
#include "catch.hpp"
#include "vmm/core/cpu_state.hpp"

namespace hv {

/// `runs_in` says yes to the context of `state`, which is the guest's, and no to any other.
template <class RunsIn>
void check_code_context(const CpuState& state, RunsIn runs_in) {
    const CodeContext context = CodeContext::of(state);
    CHECK(runs_in(context));
    const auto differs = [&](auto change) {
        CodeContext other = context;
        change(other);
        CHECK_FALSE(runs_in(other));
    };
    differs([](CodeContext& other) { other.cr0 ^= CR0_WP; });
    differs([](CodeContext& other) { other.cr3 ^= 0x1000; });
    differs([](CodeContext& other) { other.cr4 ^= CR4_SMEP; });
    differs([](CodeContext& other) { other.efer ^= EFER_NXE; });
    differs([](CodeContext& other) { other.cs_base ^= 0x10; });
    differs([](CodeContext& other) { other.cs_attributes ^= 0x400; });
    differs([](CodeContext& other) { other.cpl ^= 3; });
}

}  // namespace hv
