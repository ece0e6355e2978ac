// SPDX-License-Identifier: MIT
// The parts of the payload `events`.
#pragma once

namespace payload::events {

/// Says whether `what` holds; the payload fails if it does not.
void check(const char* what, bool holds);

void maskable_interrupts();
/// `tcg`: without what QEMU's TCG is known to do otherwise.
void non_maskable_interrupts(bool tcg);

}  // namespace payload::events
