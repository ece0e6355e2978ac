// SPDX-License-Identifier: MIT
#include "arch/x86_64/cpu/early_console.hpp"

#include "arch/x86_64/cpu/instructions.hpp"

namespace hv::cpu {
namespace {

constexpr std::uint16_t kCom1 = 0x3f8;
constexpr std::uint16_t kDebugPort = 0xe9;
constexpr std::uint16_t kLineStatus = 5;
constexpr std::uint8_t kTransmitterEmpty = 0x20;
/// A UART that is not there never gets ready; one at 115,200 baud needs about 90 us for a character.
constexpr unsigned kMaxPolls = 100'000;

constinit EarlyOutput chosen = EarlyOutput::com1;

}  // namespace

void set_early_output(EarlyOutput output) {
    chosen = output;
}

void early_write(std::string_view text) {
    for (const char c : text) {
        if (chosen == EarlyOutput::debug_port) {
            out8(kDebugPort, static_cast<std::uint8_t>(c));
            continue;
        }
        for (unsigned polls = 0; polls < kMaxPolls && (in8(kCom1 + kLineStatus) & kTransmitterEmpty) == 0;
             ++polls) {
        }
        out8(kCom1, static_cast<std::uint8_t>(c));
    }
}

}  // namespace hv::cpu
