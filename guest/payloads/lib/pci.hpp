// SPDX-License-Identifier: MIT
// PCI functions of bus 0 by configuration mechanism #1. [pci3 3.2.2.3.2 Software Generation of Configuration
// Transactions]
#pragma once

#include <cstdint>

namespace payload::pci {

struct Function {
    std::uint8_t device;
    std::uint8_t function;
};

std::uint32_t read(Function f, std::uint8_t offset);
void write(Function f, std::uint8_t offset, std::uint32_t value);
std::uint8_t read8(Function f, std::uint8_t offset);

/// The n-th function with these IDs (n from 0); false: there is none.
bool find(std::uint16_t vendor, std::uint16_t device, unsigned n, Function& found);

/// Physical address of memory BAR `index`; puts it below 4 GiB if nobody has placed it yet. Memory decoding
/// gets enabled.
std::uint64_t bar(Function f, unsigned index);

}  // namespace payload::pci
