// SPDX-License-Identifier: MIT
// A payload of many checks: each is reported, the sum goes to the debug exit port.
#pragma once

namespace payload {

/// Says what is not right, and counts.
void expect(bool right, const char* what);
/// Says "NAME: n checks, m FAILED", and starts to count for the next; for each part of a payload.
void report(const char* name);
/// How many checks of the parts that were reported were not right.
unsigned failures();

}  // namespace payload
