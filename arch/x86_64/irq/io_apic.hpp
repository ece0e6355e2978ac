// SPDX-License-Identifier: MIT
// The physical I/O APICs: device interrupts that are wires [82093aa].
#pragma once

#include "vmm/base/address.hpp"
#include "vmm/base/expected.hpp"

#include <cstdint>

namespace hv::irq {

enum class Polarity : std::uint8_t { active_high, active_low };
enum class Trigger : std::uint8_t { edge, level };

/// Makes an I/O APIC known and masks all its inputs. Error::out_of_range: there are too many;
/// Error::no_memory.
Expected<void> add_io_apic(Hpa registers, std::uint32_t first_gsi);
/// Sends `gsi` to `apic_id` as `vector`, unmasked. Error::not_found: no I/O APIC has that input.
Expected<void> route_gsi(std::uint32_t gsi, std::uint8_t vector, std::uint32_t apic_id, Polarity polarity,
                         Trigger trigger);
/// Holds a level-triggered input that was routed back, or lets it go on: it then comes if it is still pulled.
void mask_gsi(std::uint32_t gsi, bool masked);
/// Masks the two 8259s, which are not used.
void silence_legacy_pics();

}  // namespace hv::irq
