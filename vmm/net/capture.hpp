// SPDX-License-Identifier: MIT
// Copies of a switch's frames as a stream in the form of a pcap file [pcap], through a bounded ring: any CPU
// adds to it without waiting, one reader takes from it. Without a choice of ports each frame is seen once, as
// it enters the switch; of chosen ports, what their stations send and what they get. A frame is read from its
// sender's memory once more for this, so a guest that changes it meanwhile is seen to.
#pragma once

#include "vmm/base/address.hpp"
#include "vmm/base/expected.hpp"
#include "vmm/base/timer.hpp"
#include "vmm/net/frame_tap.hpp"
#include "vmm/net/switch_port.hpp"

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

namespace hv::net {

class Capture final : public FrameTap {
public:
    static constexpr std::size_t kRingSize = 256 * kKiB;
    static constexpr std::uint32_t kMaxSize = 65535;  ///< of a frame; what is longer is cut off

    struct Choice {
        std::array<std::uint64_t, SwitchPort::kMaxPorts / 64> ports{};
        bool all{true};           ///< `ports` do not count
        std::uint64_t frames{0};  ///< ends by itself after so many; 0: never

        void add(std::uint16_t port) {
            ports[port / 64] |= std::uint64_t{1} << port % 64;
            all = false;
        }
        [[nodiscard]] bool has(std::uint16_t port) const { return (ports[port / 64] >> port % 64 & 1) != 0; }
    };

    /// On the reader's CPU, which is kicked when there is something to read. `epoch_ns`: nanoseconds since
    /// 1970 when the clock stood at 0. Error::no_memory.
    static Expected<std::unique_ptr<Capture>> create(Clock& clock, std::int64_t epoch_ns);

    void see(std::uint16_t port, Direction direction, const Frame& frame) override;

    // The reader's side.
    /// While not running: a new stream. The switch's tap is set after this.
    void start(const Choice& choice);
    /// No frame is taken any more; what is in the ring can still be read. The switch's tap is gone before.
    void stop() { generation_.store(0, std::memory_order_relaxed); }
    /// The stream's next bytes; returns how many there were.
    std::size_t read(std::span<std::byte> out);
    /// The stream has ended, by stop() or by its number of frames, and all of it has been read.
    [[nodiscard]] bool ended() const;
    [[nodiscard]] std::uint64_t frames() const { return frames_read_; }
    /// Frames that had no room in the ring.
    [[nodiscard]] std::uint64_t lost() const { return lost_.load(std::memory_order_relaxed); }

    /// Set when there is something to read.
    [[nodiscard]] bool ready() const { return ready_.load(std::memory_order_acquire); }
    void set_ready(bool ready) { ready_.store(ready, std::memory_order_release); }

private:
    /// Ahead of each record in the ring, where a multiple of its size begins. `generation` is written last: 0
    /// says that the record is still being made.
    struct Mark {
        std::uint32_t generation;
        std::uint32_t size;  ///< of the record
    };
    /// Ahead of each frame in the stream [pcap 5 Packet Record].
    struct PacketHeader {
        std::uint32_t seconds, nanoseconds, captured, size;
    };
    static_assert(sizeof(Mark) == 8 && sizeof(PacketHeader) == 16);

    Capture(Clock& clock, std::int64_t epoch_ns);
    [[nodiscard]] bool wants(std::uint16_t port, Direction direction) const {
        return choice_.all ? direction == Direction::from_station : choice_.has(port);
    }
    [[nodiscard]] PacketHeader header_of(const Frame& frame) const;
    /// Room for so many bytes at `position`; false: there is none.
    bool reserve(std::size_t size, std::uint64_t& position);
    /// Writes at `position`, and moves it on.
    void put(std::span<const std::byte> bytes, std::uint64_t& position);
    [[nodiscard]] std::uint32_t& generation_at(std::uint64_t position);
    /// Whether a record can be read at tail_; skips those of an earlier stream.
    bool find_record();
    void drop_record();

    Clock& clock_;
    const std::int64_t epoch_ns_;
    const std::uint32_t reader_;
    // Changed by the reader while no frame is taken:
    Choice choice_{};
    std::uint32_t last_generation_{0};

    std::atomic<std::uint32_t> generation_{0};  ///< of the stream that frames are taken for; 0: none
    std::atomic<std::uint64_t> frames_taken_{0};
    std::atomic<std::uint64_t> lost_{0};
    std::atomic<std::uint64_t> head_{0};  ///< up to where the ring is given away,
    std::atomic<std::uint64_t> tail_{0};  ///< and from where it is in use
    std::atomic<bool> ready_{false};
    // The reader's:
    std::uint64_t frames_read_{0};
    std::size_t header_read_{0};  ///< bytes of the file's header
    std::size_t record_read_{0};  ///< bytes of the record at tail_
    alignas(8) std::array<std::byte, kRingSize> ring_{};
};

}  // namespace hv::net
