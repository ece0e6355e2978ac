// SPDX-License-Identifier: MIT
// Which pages of a VM are in its balloon. Guests give pages of 4 KiB, the host has use for granules of 2 MiB:
// one whose pages are all in the balloon is released, and reclaimed with the first page that leaves it. Needs
// its user's lock.
#pragma once

#include "vmm/base/expected.hpp"
#include "vmm/base/vec.hpp"
#include "vmm/mm/guest_memory.hpp"

#include <array>
#include <cstdint>

namespace hv::virtio {

/// Where memory goes that a guest does not need. Called with locks up to rank device_tx held.
class BalloonMemory {
public:
    /// The guest does without these granules until reclaim(), or until it touches them; their contents are
    /// lost. False: they stay as they are.
    virtual bool release(Gpa gpa, std::uint64_t bytes) = 0;
    /// The guest wants granules back that were released.
    virtual void reclaim(Gpa gpa, std::uint64_t bytes) = 0;

protected:
    ~BalloonMemory() = default;
};

class BalloonPages {
public:
    /// Both outlive this. Error::no_memory.
    static Expected<BalloonPages> create(const GuestMemory& memory, BalloonMemory& host);

    /// A page enters the balloon. False: it is not RAM.
    bool inflate(std::uint32_t page_frame);
    /// A page leaves it. False: it is not RAM.
    bool deflate(std::uint32_t page_frame);
    /// All pages leave it.
    void clear();

    [[nodiscard]] std::uint64_t pages() const { return pages_; }
    [[nodiscard]] std::uint64_t released_bytes() const { return released_ * GuestMemory::kGranule; }

private:
    static constexpr unsigned kWords = GuestMemory::kGranule / kPageSize / 64;
    struct Granule {
        std::array<std::uint64_t, kWords> inside{};  ///< a bit for each page
        bool released{false};
    };
    struct Place {
        Granule* granule;  ///< nullptr: not RAM
        Gpa start;
        unsigned word;
        std::uint64_t bit;
    };

    BalloonPages(const GuestMemory& memory, BalloonMemory& host) : memory_{&memory}, host_{&host} {}
    [[nodiscard]] Place find(std::uint32_t page_frame);
    void reclaim(Granule& granule, Gpa start);

    const GuestMemory* memory_;
    BalloonMemory* host_;
    Vec<Granule> granules_;  ///< of guest-physical space, from 0 on
    std::uint64_t pages_{0};
    std::uint64_t released_{0};
};

}  // namespace hv::virtio
