// SPDX-License-Identifier: MIT
#include "catch.hpp"
#include "vmm/net/checksum.hpp"
#include "vmm/net/frame_fixture.hpp"
#include "vmm/net/offload.hpp"

namespace {

using namespace hv;
using namespace hv::net;
using test::Bytes;
using test::TcpFrame;

constexpr OffloadSupport kNothing{};
constexpr OffloadSupport kChecksum{true, false, false, false};
constexpr OffloadSupport kAll{true, true, true, true};

}  // namespace

TEST_CASE("the checksum is rfc1071's, however the bytes are cut", "[net]") {
    // [rfc1071 3 Numerical Examples]: 00 01 f2 03 f4 f5 f6 f7 sum up to ddf2.
    const std::uint8_t example[]{0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7};
    Checksum known;
    known.add(std::as_bytes(std::span{example}));
    CHECK(known.sum() == 0xf2dd);  // as stored
    std::mt19937 random{1};
    for (unsigned round = 0; round < 2000; ++round) {
        Bytes bytes(random() % 200);
        for (std::uint8_t& byte : bytes)
            byte = static_cast<std::uint8_t>(round % 3 == 0 ? 0xff : random());
        Checksum sum;
        for (std::size_t at = 0; at < bytes.size();) {
            const std::size_t size = std::min<std::size_t>(bytes.size() - at, random() % 40);
            sum.add(std::as_bytes(std::span{bytes}).subspan(at, size));
            at += size;
        }
        const unsigned expected = test::reference_sum(bytes.data(), bytes.size());
        const unsigned stored = (sum.sum() & 0xffu) << 8 | sum.sum() >> 8;
        REQUIRE(stored == expected);
    }
}

TEST_CASE("a frame passes as it is to who takes it", "[net]") {
    std::mt19937 random{2};
    const TcpFrame tcp{.payload = 10'000};
    const Bytes bytes = tcp.build(random);
    const test::ScatteredFrame frame{bytes, tcp.offload(1448), random, 5};
    test::Recorder recorder;
    CHECK(deliver(frame.frame, kAll, recorder) == Delivery::taken);
    REQUIRE(recorder.frames.size() == 1);
    CHECK(recorder.frames[0].bytes == bytes);
    CHECK(recorder.frames[0].offload.gso_size == 1448);
}

TEST_CASE("segments are what the sender's TCP would have sent itself", "[net]") {
    std::mt19937 random{3};
    for (unsigned round = 0; round < 400; ++round) {
        TcpFrame tcp{.ipv6 = random() % 2 == 0,
                     .tags = static_cast<unsigned>(random() % 3),
                     .ip_options = static_cast<unsigned>(random() % 11 * 4),
                     .tcp_options = static_cast<unsigned>(random() % 11 * 4),
                     .payload = random() % 20'000 + 1,
                     .flags = static_cast<std::uint8_t>(random())};
        if (tcp.ipv6)
            tcp.ip_options = 0;
        const auto gso_size = static_cast<std::uint16_t>(random() % 3000 + 48);
        const Bytes bytes = tcp.build(random);
        const test::ScatteredFrame frame{bytes, tcp.offload(gso_size), random,
                                         static_cast<unsigned>(random() % 20 + 1)};
        REQUIRE(is_valid(frame.frame.offload, frame.frame.size));
        const bool sums = random() % 2 == 0;
        test::Recorder recorder;
        REQUIRE(deliver(frame.frame, sums ? kChecksum : kNothing, recorder) == Delivery::taken);
        REQUIRE(recorder.frames.size() == (tcp.payload + gso_size - 1) / gso_size);
        Bytes payload;
        for (std::size_t i = 0; i < recorder.frames.size(); ++i) {
            Bytes segment = recorder.frames[i].bytes;
            const FrameOffload& offload = recorder.frames[i].offload;
            const bool last = i + 1 == recorder.frames.size();
            REQUIRE(segment.size() <= tcp.data() + gso_size);
            REQUIRE(offload.gso_type == kGsoNone);
            REQUIRE(offload.needs_checksum == sums);
            if (sums) {  // what the receiver's hardware would do
                REQUIRE(test::get16(segment, tcp.tcp() + 16) == tcp.pseudo_sum(segment));
                const unsigned sum = test::reference_sum(&segment[tcp.tcp()], segment.size() - tcp.tcp());
                test::put16(segment, tcp.tcp() + 16, ~sum);
            }
            REQUIRE(tcp.sums_right(segment));
            REQUIRE(test::get32(segment, tcp.tcp() + 4) ==
                    static_cast<std::uint32_t>(test::get32(bytes, tcp.tcp() + 4) + i * gso_size));
            const unsigned cleared = (last ? 0u : 0x09u) | (i == 0 ? 0u : 0x80u);
            REQUIRE(segment[tcp.tcp() + 13] == (tcp.flags & ~cleared));
            if (tcp.ipv6) {
                REQUIRE(test::get16(segment, tcp.ip() + 4) == segment.size() - tcp.ip() - 40);
            } else {
                REQUIRE(test::get16(segment, tcp.ip() + 2) == segment.size() - tcp.ip());
                REQUIRE(test::get16(segment, tcp.ip() + 4) ==
                        ((test::get16(bytes, tcp.ip() + 4) + i) & 0xffff));
            }
            REQUIRE(std::equal(segment.begin(), segment.begin() + static_cast<std::ptrdiff_t>(tcp.ip()),
                               bytes.begin()));
            payload.insert(payload.end(), segment.begin() + static_cast<std::ptrdiff_t>(tcp.data()),
                           segment.end());
        }
        REQUIRE(std::equal(payload.begin(), payload.end(),
                           bytes.begin() + static_cast<std::ptrdiff_t>(tcp.data())));
    }
}

TEST_CASE("a checksum is filled in for who needs it", "[net]") {
    std::mt19937 random{4};
    for (unsigned round = 0; round < 200; ++round) {
        const TcpFrame tcp{.ipv6 = random() % 2 == 0, .payload = random() % 1500};
        const Bytes bytes = tcp.build(random);
        const test::ScatteredFrame frame{bytes, tcp.offload(0), random,
                                         static_cast<unsigned>(random() % 10 + 1)};
        test::Recorder recorder;
        REQUIRE(deliver(frame.frame, kNothing, recorder) == Delivery::taken);
        REQUIRE(recorder.frames.size() == 1);
        Bytes out = recorder.frames[0].bytes;
        REQUIRE_FALSE(recorder.frames[0].offload.needs_checksum);
        REQUIRE(out.size() == bytes.size());
        REQUIRE(test::reference_sum(&out[tcp.tcp()], out.size() - tcp.tcp(), tcp.pseudo_sum(out)) == 0xffff);
    }
}

TEST_CASE("unsegmented frames with CWR go only to who takes them", "[net]") {
    std::mt19937 random{5};
    const TcpFrame tcp{.payload = 5000, .flags = 0x90};
    const Bytes bytes = tcp.build(random);
    FrameOffload offload = tcp.offload(1000);
    offload.gso_type |= kGsoEcn;
    const test::ScatteredFrame frame{bytes, offload, random};
    test::Recorder all, some;
    deliver(frame.frame, kAll, all);
    deliver(frame.frame, {true, true, true, false}, some);
    CHECK(all.frames.size() == 1);
    CHECK(some.frames.size() == 5);
    CHECK((some.frames[0].bytes[tcp.tcp() + 13] & 0x80) != 0);
    CHECK((some.frames[1].bytes[tcp.tcp() + 13] & 0x80) == 0);
}

TEST_CASE("without room for the first segment nothing was taken, later ones are lost and said to be",
          "[net]") {
    std::mt19937 random{6};
    const TcpFrame tcp{.payload = 5000};
    const Bytes bytes = tcp.build(random);
    const test::ScatteredFrame frame{bytes, tcp.offload(1000), random};
    test::Recorder recorder;
    recorder.room = 0;
    CHECK(deliver(frame.frame, kNothing, recorder) == Delivery::no_room);
    recorder.room = 2;
    CHECK(deliver(frame.frame, kNothing, recorder) == Delivery::dropped);
    CHECK(recorder.frames.size() == 2);
}

TEST_CASE("a sender that comes again loses no segment", "[net]") {
    std::mt19937 random{16};
    const TcpFrame tcp{.payload = 5500};
    const Bytes bytes = tcp.build(random);
    test::ScatteredFrame frame{bytes, tcp.offload(1000), random, 3};
    test::Recorder whole;
    REQUIRE(deliver(frame.frame, kNothing, whole) == Delivery::taken);
    REQUIRE(whole.frames.size() == 6);
    std::uint32_t progress = 0;
    frame.frame.progress = &progress;
    test::Recorder parts;
    parts.room = 2;
    CHECK(deliver(frame.frame, kNothing, parts) == Delivery::partly);
    CHECK(progress == 2000);
    CHECK(deliver(frame.frame, kNothing, parts) == Delivery::no_room);
    CHECK(progress == 2000);
    parts.room = 1;
    CHECK(deliver(frame.frame, kNothing, parts) == Delivery::partly);
    parts.room = 3;
    CHECK(deliver(frame.frame, kNothing, parts) == Delivery::taken);
    REQUIRE(parts.frames.size() == 6);
    for (std::size_t i = 0; i < 6; ++i)
        CHECK(parts.frames[i].bytes == whole.frames[i].bytes);
    // Whatever a sender made of the frame meanwhile.
    progress = 6000;
    parts.frames.clear();
    CHECK(deliver(frame.frame, kNothing, parts) == Delivery::taken);
    CHECK(parts.frames.empty());
}

TEST_CASE("a frame is lost if any of its segments is", "[net]") {
    struct Picky final : FrameReceiver {
        Delivery receive(const Frame&) override { return ++count == 2 ? Delivery::dropped : Delivery::taken; }
        unsigned count{0};
    } picky;
    std::mt19937 random{17};
    const TcpFrame tcp{.payload = 5000};
    const Bytes bytes = tcp.build(random);
    const test::ScatteredFrame frame{bytes, tcp.offload(1000), random};
    CHECK(deliver(frame.frame, kNothing, picky) == Delivery::dropped);
    CHECK(picky.count == 5);
}

TEST_CASE("offloads that make no sense are not valid, and others are dropped", "[net]") {
    FrameOffload offload{};
    CHECK(is_valid(offload, 14));
    offload.needs_checksum = true;
    offload.checksum_start = 0xffff;
    offload.checksum_offset = 0xffff;
    CHECK_FALSE(is_valid(offload, 65'000));
    offload = {};
    offload.gso_type = kGsoTcpV4;
    offload.gso_size = 1000;
    CHECK_FALSE(is_valid(offload, 5000));  // needs a checksum
    offload.needs_checksum = true;
    CHECK(is_valid(offload, 5000));
    offload.gso_size = 1;
    CHECK_FALSE(is_valid(offload, 5000));
    offload.gso_size = 1000;
    offload.gso_type = 3;
    CHECK_FALSE(is_valid(offload, 5000));
    offload.gso_type = kGsoEcn;
    CHECK_FALSE(is_valid(offload, 5000));

    std::mt19937 random{7};
    const TcpFrame tcp{.payload = 5000};
    const auto dropped = [&](auto&& spoil) {
        Bytes bytes = tcp.build(random);
        FrameOffload asked = tcp.offload(1000);
        spoil(bytes, asked);
        const test::ScatteredFrame frame{bytes, asked, random};
        test::Recorder recorder;
        CHECK(deliver(frame.frame, kNothing, recorder) == Delivery::dropped);
        CHECK(recorder.frames.empty());
    };
    dropped([](Bytes& bytes, FrameOffload&) { bytes[14] = 0x65; });
    dropped([](Bytes& bytes, FrameOffload&) { bytes[14] = 0x4f; });
    dropped([](Bytes& bytes, FrameOffload&) { bytes[12] = 0x12; });
    dropped([](Bytes& bytes, FrameOffload&) { bytes[23] = 17; });
    dropped([](Bytes& bytes, FrameOffload&) { bytes[46] = 0x40; });
    dropped([](Bytes&, FrameOffload& asked) { asked.checksum_start = 20; });
    dropped([](Bytes&, FrameOffload& asked) { asked.checksum_start = 4000; });
    dropped([](Bytes&, FrameOffload& asked) { asked.checksum_offset = 6; });
    dropped([](Bytes& bytes, FrameOffload&) { bytes.resize(40); });
    dropped([](Bytes&, FrameOffload& asked) { asked.gso_type = kGsoTcpV6; });
    dropped([](Bytes&, FrameOffload& asked) {
        asked = {};
        asked.needs_checksum = true;
        asked.checksum_start = 2000;  // beyond all headers
    });
}

TEST_CASE("a checksum leaves the headers alone that lie before its transport", "[net]") {
    std::mt19937 random{8};
    const auto leaves = [&](const Bytes& bytes, std::size_t start) {
        FrameOffload offload{};
        offload.needs_checksum = true;
        offload.checksum_start = static_cast<std::uint16_t>(start);
        return leaves_headers(test::ScatteredFrame{bytes, offload, random}.frame);
    };
    for (const bool ipv6 : {false, true}) {
        for (unsigned tags = 0; tags < 3; ++tags) {
            const TcpFrame tcp{.ipv6 = ipv6, .tags = tags, .ip_options = ipv6 ? 0u : 12u, .payload = 200};
            Bytes bytes = tcp.build(random);
            CHECK(leaves(bytes, tcp.tcp()));
            CHECK(leaves(bytes, tcp.tcp() + 50));
            for (std::size_t start = 0; start < tcp.tcp(); ++start)
                CHECK_FALSE(leaves(bytes, start));
            // Neighbor Discovery is ICMPv6; nothing of the kind is in IPv4.
            bytes[tcp.ip() + (ipv6 ? 6 : 9)] = 58;
            CHECK(leaves(bytes, tcp.tcp()) == !ipv6);
            CHECK(leaves_headers(test::ScatteredFrame{bytes, {}, random}.frame));
        }
    }
    const TcpFrame tcp{.payload = 10};
    Bytes bytes = tcp.build(random);
    bytes[tcp.ip()] = 0x44;  // a header that is too short
    CHECK_FALSE(leaves(bytes, tcp.tcp()));
}
