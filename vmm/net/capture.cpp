// SPDX-License-Identifier: MIT
#include "vmm/net/capture.hpp"

#include "vmm/base/bytes.hpp"
#include "vmm/base/machine.hpp"
#include "vmm/net/frame_segments.hpp"

#include <algorithm>
#include <cstring>
#include <new>

namespace hv::net {
namespace {

constexpr std::uint64_t kNanosecondsPerSecond = 1'000'000'000;

/// [pcap 4 File Header]: times in nanoseconds, version 2.4, Ethernet.
struct FileHeader {
    std::uint32_t magic{0xa1b2'3c4d};
    std::uint16_t major{2}, minor{4};
    std::uint32_t reserved[2]{};
    std::uint32_t snap_length{Capture::kMaxSize};
    std::uint32_t link_type{1};
};
static_assert(sizeof(FileHeader) == 24);
constexpr FileHeader kFileHeader;

constexpr std::size_t in_ring(std::uint64_t position) {
    return static_cast<std::size_t>(position % Capture::kRingSize);
}

}  // namespace

Capture::Capture(Clock& clock, std::int64_t epoch_ns)
    : clock_{clock}, epoch_ns_{epoch_ns}, reader_{machine::cpu_index()} {}

Expected<std::unique_ptr<Capture>> Capture::create(Clock& clock, std::int64_t epoch_ns) {
    std::unique_ptr<Capture> created{new (std::nothrow) Capture{clock, epoch_ns}};
    if (created == nullptr)
        return Unexpected{Error::no_memory};
    return created;
}

// --- any CPU -----------------------------------------------------------------------------------------------

void Capture::see(std::uint16_t port, Direction direction, const Frame& frame) {
    const std::uint32_t generation = generation_.load(std::memory_order_acquire);
    if (generation == 0 || !wants(port, direction))
        return;
    if (choice_.frames != 0 && frames_taken_.load(std::memory_order_relaxed) >= choice_.frames)
        return;
    const PacketHeader header = header_of(frame);
    const std::size_t size = sizeof header + header.captured;
    std::uint64_t position = 0;
    if (!reserve(sizeof(Mark) + size, position)) {
        lost_.fetch_add(1, std::memory_order_relaxed);
        return;
    }
    std::uint32_t& mark = generation_at(position);
    const Mark unfinished{0, static_cast<std::uint32_t>(size)};
    put(std::as_bytes(std::span{&unfinished, 1}).subspan(offsetof(Mark, size)),
        position += offsetof(Mark, size));
    put(std::as_bytes(std::span{&header, 1}), position);
    for_each_piece(frame.segments, 0, header.captured,
                   [&](std::span<const std::byte> piece) { put(piece, position); });
    frames_taken_.fetch_add(1, std::memory_order_relaxed);
    std::atomic_ref{mark}.store(generation, std::memory_order_release);
    if (!ready_.exchange(true, std::memory_order_acq_rel))
        machine::kick_cpu(reader_);
}

Capture::PacketHeader Capture::header_of(const Frame& frame) const {
    const auto now = static_cast<std::uint64_t>(epoch_ns_) + clock_.to_nanoseconds(clock_.now());
    return {static_cast<std::uint32_t>(now / kNanosecondsPerSecond),
            static_cast<std::uint32_t>(now % kNanosecondsPerSecond), std::min(frame.size, kMaxSize),
            frame.size};
}

bool Capture::reserve(std::size_t size, std::uint64_t& position) {
    const std::uint64_t whole = (size + sizeof(Mark) - 1) / sizeof(Mark) * sizeof(Mark);
    position = head_.load(std::memory_order_relaxed);
    do {
        if (position + whole - tail_.load(std::memory_order_acquire) > kRingSize)
            return false;
    } while (!head_.compare_exchange_weak(position, position + whole, std::memory_order_relaxed));
    return true;
}

void Capture::put(std::span<const std::byte> bytes, std::uint64_t& position) {
    const std::size_t at = in_ring(position);
    const std::size_t first = std::min(bytes.size(), kRingSize - at);
    std::memcpy(&ring_[at], bytes.data(), first);
    std::memcpy(ring_.data(), bytes.data() + first, bytes.size() - first);
    position += bytes.size();
}

std::uint32_t& Capture::generation_at(std::uint64_t position) {
    return *std::launder(reinterpret_cast<std::uint32_t*>(&ring_[in_ring(position)]));
}

// --- the reader --------------------------------------------------------------------------------------------

void Capture::start(const Choice& choice) {
    while (find_record())
        drop_record();
    choice_ = choice;
    frames_taken_ = 0;
    lost_ = 0;
    frames_read_ = 0;
    header_read_ = 0;
    last_generation_ = std::max(last_generation_ + 1, 1u);
    generation_.store(last_generation_, std::memory_order_release);
    ready_ = true;
}

bool Capture::find_record() {
    for (;;) {
        const std::uint64_t tail = tail_.load(std::memory_order_relaxed);
        if (tail == head_.load(std::memory_order_relaxed))
            return false;
        const std::uint32_t generation = std::atomic_ref{generation_at(tail)}.load(std::memory_order_acquire);
        if (generation == 0)
            return false;
        if (generation == last_generation_)
            return true;
        drop_record();
    }
}

void Capture::drop_record() {
    const std::uint64_t tail = tail_.load(std::memory_order_relaxed);
    const auto size = load<Mark>(&ring_[in_ring(tail)]).size;
    const std::size_t whole = (sizeof(Mark) + size + sizeof(Mark) - 1) / sizeof(Mark) * sizeof(Mark);
    // Whatever mark comes to lie here next is 0 until its record is made.
    const std::size_t first = std::min(whole, kRingSize - in_ring(tail));
    std::memset(&ring_[in_ring(tail)], 0, first);
    std::memset(ring_.data(), 0, whole - first);
    record_read_ = 0;
    tail_.store(tail + whole, std::memory_order_release);
}

std::size_t Capture::read(std::span<std::byte> out) {
    const auto file_header = std::as_bytes(std::span{&kFileHeader, 1}).subspan(header_read_);
    std::size_t done = std::min(file_header.size(), out.size());
    std::copy_n(file_header.begin(), done, out.begin());
    header_read_ += done;
    while (done < out.size() && (choice_.frames == 0 || frames_read_ < choice_.frames) && find_record()) {
        const std::uint64_t tail = tail_.load(std::memory_order_relaxed);
        const std::size_t size = load<Mark>(&ring_[in_ring(tail)]).size;
        const std::size_t at = in_ring(tail + sizeof(Mark) + record_read_);
        const std::size_t piece = std::min({size - record_read_, kRingSize - at, out.size() - done});
        std::memcpy(&out[done], &ring_[at], piece);
        done += piece;
        record_read_ += piece;
        if (record_read_ == size) {
            drop_record();
            ++frames_read_;
        }
    }
    return done;
}

bool Capture::ended() const {
    if (header_read_ < sizeof(FileHeader))
        return false;
    if (choice_.frames != 0 && frames_read_ >= choice_.frames)
        return true;
    return generation_.load(std::memory_order_relaxed) == 0 &&
           tail_.load(std::memory_order_relaxed) == head_.load(std::memory_order_relaxed);
}

}  // namespace hv::net
