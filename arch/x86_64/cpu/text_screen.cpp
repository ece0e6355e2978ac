// SPDX-License-Identifier: MIT
#include "arch/x86_64/cpu/text_screen.hpp"

#include "arch/x86_64/cpu/host_memory.hpp"

#include <cstdint>

namespace hv::cpu {
namespace {

constexpr Hpa kScreen{0xb'8000};
constexpr unsigned kColumns = 80, kRows = 25;
constexpr std::uint16_t kGreyOnBlack = 0x0700;

constinit volatile std::uint16_t* cells = nullptr;
constinit unsigned row = 0, column = 0;

void scroll() {
    for (unsigned i = 0; i < kColumns * (kRows - 1); ++i)
        cells[i] = cells[i + kColumns];
    for (unsigned i = kColumns * (kRows - 1); i < kColumns * kRows; ++i)
        cells[i] = kGreyOnBlack | ' ';
    row = kRows - 1;
}

}  // namespace

void init_text_screen() {
    auto mapped = map_device<volatile std::uint16_t>(kScreen, kColumns * kRows * sizeof(std::uint16_t));
    if (!mapped)
        return;
    cells = *mapped;
    for (unsigned i = 0; i < kColumns * kRows; ++i)
        cells[i] = kGreyOnBlack | ' ';
}

void text_screen_write(std::string_view text) {
    if (cells == nullptr)
        return;
    for (const char c : text) {
        if (c == '\r') {
            column = 0;
            continue;
        }
        if (c == '\n' || column == kColumns) {
            column = 0;
            if (++row == kRows)
                scroll();
            if (c == '\n')
                continue;
        }
        cells[row * kColumns + column++] =
            static_cast<std::uint16_t>(kGreyOnBlack | static_cast<unsigned char>(c));
    }
}

}  // namespace hv::cpu
