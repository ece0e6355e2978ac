// SPDX-License-Identifier: MIT
// One CPU's address space identifiers. They are dealt out one after the other, so that a fresh one never
// meets old translations; when they are used up, the CPU flushes everything and a new generation begins
// [apm2 15.16 TLB Control].
#pragma once

#include <cstdint>

namespace hv::svm {

struct Asid {
    std::uint32_t value;
    std::uint64_t generation;  ///< those of older generations are void
    bool flush_all;            ///< all the CPU's translations have to go before it is used
};

class AsidPool {
public:
    /// The CPU has ASIDs 0 to count - 1, and 0 is the host's. The first one comes with a flush.
    void init(std::uint32_t count) { count_ = next_ = count; }
    Asid next() {
        const bool used_up = next_ >= count_;
        if (used_up) {
            next_ = 1;
            ++generation_;
        }
        return {next_++, generation_, used_up};
    }
    [[nodiscard]] std::uint64_t generation() const { return generation_; }

private:
    std::uint32_t count_{0};
    std::uint32_t next_{0};
    std::uint64_t generation_{0};
};

}  // namespace hv::svm
