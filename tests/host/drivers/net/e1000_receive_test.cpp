// SPDX-License-Identifier: MIT
#include "drivers/net/e1000_fixture.hpp"

using namespace hv;
using namespace hv::netdrv;
using namespace hv::test;

TEST_CASE("what arrives is handed on, with what the device says of its checksum", "[net]") {
    E1000Fixture f{each_kind()};
    f.start();
    std::uint64_t bytes_received = 0;
    for (unsigned i = 0; i < 1000; ++i) {
        const TcpFrame tcp{.payload = f.random() % 1400 + 6};
        Bytes bytes = f.software(tcp.build(f.random), tcp.offload(0))[0].bytes;
        const bool wrong = i % 3 == 0;
        if (wrong)
            bytes[60] ^= 1;
        if (i % 5 == 0)
            bytes = f.random_bytes(60);
        f.sink.frames.clear();
        REQUIRE(f.device.receive(bytes));
        CHECK(f.device.interrupt());
        f.nic->service();
        CHECK_FALSE(f.device.interrupt());
        REQUIRE(f.sink.frames.size() == 1);
        REQUIRE(f.sink.frames[0].bytes == bytes);
        REQUIRE(f.sink.frames[0].offload.data_valid == (!wrong && i % 5 != 0));
        REQUIRE_FALSE(f.sink.frames[0].offload.needs_checksum);
        bytes_received += bytes.size();
    }
    CHECK(f.sink.headers_right);
    CHECK(f.nic->counters().frames_received == 1000);
    CHECK(f.nic->counters().bytes_received == bytes_received);
    CHECK(f.nic->counters().errors == 0);
}

TEST_CASE("a checksum that the device says to ignore is not believed", "[net]") {
    E1000Fixture f{each_kind()};
    f.start();
    f.device.report_set = e1000::ReceiveDescriptor::TCPCS::kMask | e1000::ReceiveDescriptor::IXSM::kMask;
    REQUIRE(f.device.receive(Bytes(60)));
    f.device.report_set = e1000::ReceiveDescriptor::TCPCS::kMask | e1000::ReceiveDescriptor::IPE::kMask;
    f.device.report_clear = e1000::ReceiveDescriptor::IXSM::kMask;
    REQUIRE(f.device.receive(Bytes(60)));
    f.nic->service();
    REQUIRE(f.sink.frames.size() == 2);
    CHECK_FALSE(f.sink.frames[0].offload.data_valid);
    CHECK_FALSE(f.sink.frames[1].offload.data_valid);
}

TEST_CASE("buffers go back to the device in batches", "[net]") {
    E1000Fixture f{each_kind()};
    f.start();
    f.device.writes.clear();
    for (unsigned i = 0; i < 255; ++i)
        REQUIRE(f.device.receive(Bytes(60, static_cast<std::uint8_t>(i))));
    CHECK_FALSE(f.device.receive(Bytes(60)));
    f.nic->service();
    CHECK(f.sink.frames.size() == 255);
    CHECK(f.device.writes[e1000::RDT] == 8);
    CHECK(f.nic->counters().missed == 1);
    for (unsigned i = 0; i < 255; ++i)
        REQUIRE(f.device.receive(Bytes(60)));
    f.device.writes.clear();
    f.nic->service();
    f.nic->service();
    CHECK(f.device.writes[e1000::RDT] == 8);
}

TEST_CASE("damaged frames are dropped and counted", "[net]") {
    using D = e1000::ReceiveDescriptor;
    E1000Fixture f{each_kind()};
    f.start();
    const auto arrives = [&] {
        const Bytes marker = f.random_bytes(100);
        f.sink.frames.clear();
        const std::uint64_t before = f.nic->counters().errors;
        REQUIRE(f.device.receive(Bytes(200)));
        f.device.report_length.reset();
        f.device.report_set = f.device.report_clear = 0;
        REQUIRE(f.device.receive(marker));
        f.nic->service();
        CHECK(f.nic->counters().errors - before == (f.sink.frames.size() == 1 ? 1 : 0));
        CHECK(f.sink.frames.back().bytes == marker);
        return f.sink.frames.size() == 2;
    };
    CHECK(arrives());
    for (const unsigned length : {0u, 1u, 13u, 1523u, 2048u, 2049u, 65535u}) {
        f.device.report_length = static_cast<std::uint16_t>(length);
        CHECK_FALSE(arrives());
    }
    for (const unsigned length : {14u, 1522u}) {
        f.device.report_length = static_cast<std::uint16_t>(length);
        CHECK(arrives());
    }
    for (const std::uint64_t error :
         {D::CE::kMask, D::SE::kMask, D::SEQ::kMask, D::CXE::kMask, D::RXE::kMask}) {
        f.device.report_set = error;
        CHECK_FALSE(arrives());
    }
    for (const std::uint64_t error : {D::IPE::kMask, D::TCPE::kMask}) {
        f.device.report_set = error;
        CHECK(arrives());
    }
}

TEST_CASE("a frame over several buffers is dropped as one", "[net]") {
    E1000Fixture f{each_kind()};
    f.start();
    f.device.report_clear = e1000::ReceiveDescriptor::EOP::kMask;
    for (unsigned i = 0; i < 3; ++i)
        REQUIRE(f.device.receive(Bytes(1000)));
    f.nic->service();
    f.device.report_clear = 0;
    REQUIRE(f.device.receive(Bytes(500)));  // its end
    const Bytes next = f.random_bytes(70);
    REQUIRE(f.device.receive(next));
    f.nic->service();
    REQUIRE(f.sink.frames.size() == 1);
    CHECK(f.sink.frames[0].bytes == next);
    CHECK(f.nic->counters().errors == 1);
}

TEST_CASE("a device that leaves the FCS at the end of frames works too", "[net]") {
    E1000Fixture f{each_kind()};
    f.start();
    f.device.keeps_fcs = true;
    Bytes bytes = f.random_bytes(1518);
    REQUIRE(f.device.receive(bytes));
    f.nic->service();
    REQUIRE(f.sink.frames.size() == 1);
    bytes.resize(1522, 0xfc);
    CHECK(f.sink.frames[0].bytes == bytes);
}

TEST_CASE("few small frames interrupt soon, others in batches", "[net]") {
    constexpr std::uint32_t kSoon = 78;    // units of 256 ns: 50,000 a second
    constexpr std::uint32_t kLater = 488;  // 8,000
    E1000Fixture f{each_kind()};
    f.start();
    const auto receive = [&](unsigned count, std::size_t size) {
        for (unsigned i = 0; i < count; ++i)
            REQUIRE(f.device.receive(f.random_bytes(size)));
        f.nic->service();
        return f.device.peek(e1000::ITR);
    };
    CHECK(receive(5, 64) == kLater);
    CHECK(receive(0, 0) == kLater);
    CHECK(receive(4, 256) == kSoon);
    CHECK(receive(1, 1025) == kLater);
    CHECK(receive(1, 1024) == kSoon);
}

TEST_CASE("a flood of frames does not keep the CPU", "[net]") {
    E1000Fixture f{each_kind()};
    f.start();
    unsigned arrived = 1;
    f.sink.on_frame = [&] {
        if (arrived < 1000 && f.device.receive(Bytes(60)))
            ++arrived;
    };
    REQUIRE(f.device.receive(Bytes(60)));
    f.nic->service();
    CHECK(f.sink.frames.size() == 256);
    f.steps.run_for(100'000);
    CHECK(f.sink.frames.size() == 1000);
    CHECK(f.steps.idle());
}

TEST_CASE("one CPU receives at a time, and looks again for another", "[net]") {
    E1000Fixture f{each_kind()};
    f.start();
    unsigned depth = 0;
    f.sink.on_frame = [&] {
        CHECK(++depth == 1);
        if (f.sink.frames.size() < 10)
            f.device.receive(Bytes(60));
        f.nic->service();  // as another CPU would
        --depth;
    };
    REQUIRE(f.device.receive(Bytes(60)));
    f.nic->service();
    CHECK(f.sink.frames.size() == 10);
}
