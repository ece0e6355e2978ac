// SPDX-License-Identifier: MIT
// Decodes one instruction from its bytes: prefixes, REX, VEX and EVEX, opcode maps, ModRM, SIB, displacement,
// immediate [sdm2 2 Instruction Format]. The length is exact for all that Intel and AMD processors execute
// but AMD's XOP.
#pragma once

#include "vmm/x86/instruction.hpp"

#include <cstdint>
#include <span>

namespace hv::x86 {

/// [sdm2 2.3.11 AVX Instruction Length]
inline constexpr unsigned kMaxInstructionLength = 15;

enum class DecodeStatus : std::uint8_t {
    ok,
    need_more,  ///< the instruction goes on beyond the bytes given, which were fewer than 15
    invalid,    ///< undefined in this mode, or longer than 15 bytes
};

/// Decodes the instruction that `bytes` begin with. `out` is complete if the status is ok.
DecodeStatus decode(std::span<const std::uint8_t> bytes, CodeMode mode, Instruction& out);

}  // namespace hv::x86
