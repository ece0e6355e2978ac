// SPDX-License-Identifier: MIT
#include "catch.hpp"
#include "drivers/net/received_frame.hpp"

#include <algorithm>
#include <vector>

using namespace hv;
using namespace hv::netdrv;

TEST_CASE("a received frame is one segment where it lies, behind a copy of its first bytes", "[net]") {
    struct Sink final : FrameSink {
        bool transmit(const Frame& frame) override {
            REQUIRE(frame.segments.size() == 1);
            seen = frame;
            segment = frame.segments[0];
            return false;
        }
        Frame seen{};
        FrameSegment segment{};
    };
    for (const std::size_t size : {14u, 60u, 95u, 96u, 97u, 1518u}) {
        CAPTURE(size);
        std::vector<std::byte> data(size);
        for (std::size_t i = 0; i < size; ++i)
            data[i] = static_cast<std::byte>(i * 7 + 1);
        Sink sink;
        hand_on(data, {.data_valid = true, .checksum_start = 34}, sink);
        CHECK(sink.segment.data == data.data());
        CHECK(sink.segment.size == size);
        CHECK(sink.seen.size == size);
        CHECK(sink.seen.offload.data_valid);
        CHECK(sink.seen.offload.checksum_start == 34);
        CHECK_FALSE(sink.seen.offload.needs_checksum);
        const auto shown = static_cast<std::ptrdiff_t>(std::min(size, Frame::kHeaderSize));
        CHECK(std::equal(data.begin(), data.begin() + shown, sink.seen.header.begin()));
        CHECK(std::all_of(sink.seen.header.begin() + shown, sink.seen.header.end(),
                          [](std::byte byte) { return byte == std::byte{0}; }));
    }
}
