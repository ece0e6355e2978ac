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

/// Where memory goes that a guest does not need. Called with locks up to rank device_tx held, and by several
/// CPUs at once.
class BalloonMemory {
public:
    enum class Release : std::uint8_t {
        refused,  ///< it stays as it is
        pending,  ///< it is going: to be asked again once that is settled, before the guest may use it
        done,
    };
    /// The guest does without this granule until it touches it; its contents are lost.
    virtual Release release(Gpa granule) = 0;
    /// The guest is about to use a granule that was released. False: there is no memory for it at the moment.
    virtual bool reclaim(Gpa granule) = 0;
    /// What is pending shall stay where it is, if it is not on its way yet: the guest knows of nothing.
    virtual void cancel() = 0;

protected:
    ~BalloonMemory() = default;
};

class BalloonPages {
public:
    /// Both outlive this. Error::no_memory.
    static Expected<BalloonPages> create(const GuestMemory& memory, BalloonMemory& host);

    enum class Result : std::uint8_t {
        done,
        not_ram,
        waits,  ///< for the host: to be tried again before the driver gets an answer
    };
    /// A page enters the balloon.
    Result inflate(std::uint32_t page_frame);
    /// A page leaves it.
    Result deflate(std::uint32_t page_frame);
    /// All pages leave it; what was released comes back as it is touched.
    void clear();

    [[nodiscard]] std::uint64_t pages() const { return pages_; }
    [[nodiscard]] std::uint64_t released_bytes() const { return released_ * GuestMemory::kGranule; }

private:
    static constexpr unsigned kWords = GuestMemory::kGranule / kPageSize / 64;
    struct Granule {
        std::array<std::uint64_t, kWords> inside{};  ///< a bit for each page
        bool offered{false};  ///< all are, and the host has said what it does with them
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
    const GuestMemory* memory_;
    BalloonMemory* host_;
    Vec<Granule> granules_;  ///< of guest-physical space, from 0 on
    std::uint64_t pages_{0};
    std::uint64_t released_{0};
};

}  // namespace hv::virtio
