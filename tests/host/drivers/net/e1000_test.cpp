// SPDX-License-Identifier: MIT
#include "catch.hpp"
#include "drivers/net/e1000.hpp"
#include "fakes/arena_frames.hpp"
#include "fakes/e1000_device.hpp"
#include "vmm/net/frame_fixture.hpp"
#include "vmm/net/offload.hpp"

#include <functional>

namespace {

using namespace hv;
using namespace hv::netdrv;
using fake::E1000Device;
using test::Bytes;
using test::ScatteredFrame;
using test::TcpFrame;
using Kind = E1000Kind;

constexpr OffloadSupport kNothing{};

/// What the driver delivers to.
class Switch final : public FrameSink {
public:
    bool transmit(const Frame& frame) override {
        frames.push_back(test::copy_of(frame));
        headers_right =
            headers_right &&
            std::equal(frames.back().bytes.begin(),
                       frames.back().bytes.begin() + static_cast<std::ptrdiff_t>(std::min<std::size_t>(
                                                         frame.size, frame.header.size())),
                       reinterpret_cast<const std::uint8_t*>(frame.header.data()));
        if (on_frame)
            on_frame();
        return true;
    }
    std::vector<test::Received> frames;
    bool headers_right{true};
    std::function<void()> on_frame;
};

struct Fixture {
    explicit Fixture(Kind kind_) : kind{kind_} {}
    ~Fixture() {
        nic.reset();
        for (const std::string& violation : device.violations)
            UNSCOPED_INFO(violation);
        CHECK(device.violations.empty());
        CHECK(frames.outstanding() == 0);
    }
    Expected<std::unique_ptr<E1000>> create(const OffloadSupport& allowed = E1000::kAllOffloads) {
        return E1000::create(device, pool, clock, "net0", kind, allowed);
    }
    void start(const OffloadSupport& allowed = E1000::kAllOffloads) {
        auto created = create(allowed);
        REQUIRE(created);
        nic = std::move(*created);
        nic->start(sink);
    }
    Bytes random_bytes(std::size_t size) {
        Bytes bytes(size);
        for (std::uint8_t& byte : bytes)
            byte = static_cast<std::uint8_t>(random());
        return bytes;
    }
    bool send(const Bytes& bytes, const FrameOffload& offload = {}, unsigned pieces = 1) {
        const ScatteredFrame frame{bytes, offload, random, pieces};
        return nic->transmit(frame.frame);
    }
    /// The frames that software makes of `bytes`.
    std::vector<test::Received> software(const Bytes& bytes, const FrameOffload& offload) {
        const ScatteredFrame frame{bytes, offload, random, 1};
        test::Recorder recorder;
        REQUIRE(net::deliver(frame.frame, kNothing, recorder) == net::Delivery::taken);
        return recorder.frames;
    }
    void check_sent(const std::vector<test::Received>& expected) {
        REQUIRE(device.sent.size() == expected.size());
        for (std::size_t i = 0; i < expected.size(); ++i)
            REQUIRE(device.sent[i] == expected[i].bytes);
    }

    const Kind kind;
    std::mt19937 random{1};
    fake::StepClock steps;
    fake::BusyClock clock{steps};
    fake::ArenaFrames frames;
    DmaPool pool{frames};
    E1000Device device{kind, steps};
    Switch sink;
    std::unique_ptr<E1000> nic;
};

Kind each_kind() {
    return GENERATE(Kind::i8254x, Kind::i82574);
}

}  // namespace

TEST_CASE("a controller is reset, silent, and known by the address in its EEPROM", "[net]") {
    Fixture f{each_kind()};
    f.nic = std::move(*f.create());
    REQUIRE(f.nic);
    CHECK(f.device.resets == 1);
    CHECK(f.nic->mac() == MacAddress{0x52, 0x54, 0x00, 0x12, 0x34, 0x56});
    CHECK(f.nic->link_up());
    CHECK(f.nic->model() == (f.kind == Kind::i8254x ? "Intel 82540EM" : "Intel 82574L"));
    CHECK_FALSE(f.device.receive(Bytes(60)));
    f.device.set_link(true);
    CHECK_FALSE(f.device.interrupt());
    f.nic->start(f.sink);
    CHECK(f.device.interrupt());
    // 8000 interrupts a second at most.
    CHECK(f.device.peek(e1000::ITR) == 488);
    CHECK((f.device.peek(e1000::CTRL) & e1000::CTRL_SLU) != 0);
}

TEST_CASE("without an address in the EEPROM the receive address register has it", "[net]") {
    Fixture f{each_kind()};
    f.device.poke(e1000::RAL0, 0x44332202);
    f.device.poke(e1000::RAH0, 0x8000'6655);
    const MacAddress expected{0x02, 0x22, 0x33, 0x44, 0x55, 0x66};
    SECTION("no EEPROM") {
        f.device.eeprom_there = false;
    }
    SECTION("an empty one") {
        f.device.set_eeprom_mac({});
    }
    SECTION("an erased one") {
        f.device.eeprom.fill(0xffff);
    }
    f.nic = std::move(*f.create());
    CHECK(f.nic->mac() == expected);
}

TEST_CASE("an EEPROM with a wrong checksum is believed all the same", "[net]") {
    Fixture f{each_kind()};
    f.device.eeprom.back() ^= 1;
    f.nic = std::move(*f.create());
    CHECK(f.nic->mac() == MacAddress{0x52, 0x54, 0x00, 0x12, 0x34, 0x56});
}

TEST_CASE("a controller that cannot be used is refused in bounded time", "[net]") {
    Fixture f{each_kind()};
    const std::uint64_t before = f.steps.now();
    SECTION("its reset does not end") {
        f.device.reset_sticks = true;
        CHECK(f.create().error() == Error::timed_out);
    }
    SECTION("it is not there") {
        f.device.vanished = true;
        CHECK(f.create().error() == Error::io_error);
    }
    SECTION("it has no address") {
        f.device.set_eeprom_mac({0x01, 0, 0, 0, 0, 0});
        CHECK(f.create().error() == Error::corrupted);
    }
    SECTION("its registers are something else's") {
        f.device.registers_size = 0x1000;
        CHECK(f.create().error() == Error::invalid_argument);
    }
    SECTION("there is no memory") {
        for (unsigned i = 0; i < 4; ++i) {
            f.frames.limit(i);
            CHECK(f.create().error() == Error::no_memory);
        }
    }
    CHECK(f.steps.now() - before < f.steps.hz());
}

TEST_CASE("frames are sent as they are, short ones padded with zeroes", "[net]") {
    Fixture f{each_kind()};
    f.start();
    std::uint64_t bytes_sent = 0;
    for (unsigned i = 0; i < 2000; ++i) {
        Bytes bytes = f.random_bytes(14 + f.random() % 1505);
        REQUIRE(f.send(bytes, {}, f.random() % 8 + 1));
        bytes_sent += bytes.size();
        bytes.resize(std::max<std::size_t>(bytes.size(), 60));
        REQUIRE(f.device.sent.back() == bytes);
    }
    CHECK(f.nic->counters().frames_sent == 2000);
    CHECK(f.nic->counters().bytes_sent == bytes_sent);
    CHECK(f.nic->counters().no_room == 0);
    CHECK_FALSE(f.device.interrupt());
}

TEST_CASE("what does not fit the wire is not sent", "[net]") {
    Fixture f{each_kind()};
    f.start();
    CHECK_FALSE(f.send(Bytes(13)));
    CHECK_FALSE(f.send(Bytes(1519)));
    CHECK(f.send(Bytes(1518)));
    CHECK(f.device.sent.size() == 1);
    CHECK(f.nic->counters().frames_sent == 1);
    CHECK(f.nic->counters().no_room == 0);
}

TEST_CASE("what is sent is the frame as it was when it was taken", "[net]") {
    Fixture f{each_kind()};
    f.start();
    f.device.hung = true;
    Bytes bytes = f.random_bytes(1000);
    const Bytes original = bytes;
    const ScatteredFrame frame{bytes, {}, f.random, 3};
    REQUIRE(f.nic->transmit(frame.frame));
    bytes.assign(bytes.size(), 0xee);
    f.device.go_on();
    REQUIRE(f.device.sent.size() == 1);
    CHECK(f.device.sent[0] == original);
}

TEST_CASE("frames for which the ring has no room are dropped and counted", "[net]") {
    Fixture f{each_kind()};
    f.start();
    f.device.hung = true;
    for (unsigned i = 0; i < 255; ++i)
        REQUIRE(f.send(Bytes(60, static_cast<std::uint8_t>(i))));
    CHECK_FALSE(f.send(Bytes(60)));
    CHECK_FALSE(f.send(Bytes(60)));
    CHECK(f.nic->counters().no_room == 2);
    f.device.go_on();
    CHECK(f.send(Bytes(60, 0xff)));
    REQUIRE(f.device.sent.size() == 256);
    for (unsigned i = 0; i < 256; ++i)
        CHECK(f.device.sent[i][0] == i);
    // A large frame needs several places at once.
    f.device.hung = true;
    for (unsigned i = 0; i < 250; ++i)
        REQUIRE(f.send(Bytes(60)));
    const TcpFrame tcp{.payload = 30'000};
    const Bytes large = tcp.build(f.random);
    CHECK_FALSE(f.send(large, tcp.offload(1448)));
    CHECK(f.send(Bytes(60)));
    CHECK(f.nic->counters().no_room == 3);
}

TEST_CASE("checksums left to the device come out as software's", "[net]") {
    Fixture f{each_kind()};
    f.start();
    for (unsigned round = 0; round < 500; ++round) {
        const TcpFrame tcp{.ipv6 = f.random() % 2 == 0,
                           .tags = static_cast<unsigned>(f.random() % 2),
                           .tcp_options = static_cast<unsigned>(f.random() % 11 * 4),
                           .payload = f.random() % 1380 + 2};
        const Bytes bytes = tcp.build(f.random);
        f.device.sent.clear();
        REQUIRE(f.send(bytes, tcp.offload(0), f.random() % 6 + 1));
        f.check_sent(f.software(bytes, tcp.offload(0)));
    }
}

TEST_CASE("the padding of short frames is not summed up by the device", "[net]") {
    Fixture f{each_kind()};
    f.start();
    unsigned sums = 0;  // of frames that need no padding
    for (std::size_t payload = 0; payload <= 8; ++payload) {
        const TcpFrame tcp{.payload = payload};
        const Bytes bytes = tcp.build(f.random);
        std::vector<test::Received> expected = f.software(bytes, tcp.offload(0));
        expected[0].bytes.resize(std::max<std::size_t>(bytes.size(), 60));
        f.device.sent.clear();
        REQUIRE(f.send(bytes, tcp.offload(0)));
        f.check_sent(expected);
        sums += bytes.size() < 60 ? 0 : 1;
        CHECK(f.device.checksums == sums);
    }
}

TEST_CASE("segments that the device cuts are those that software cuts", "[net]") {
    Fixture f{each_kind()};
    f.start();
    for (unsigned round = 0; round < 300; ++round) {
        TcpFrame tcp{.ipv6 = f.kind == Kind::i82574 && f.random() % 2 == 0,
                     .tags = static_cast<unsigned>(f.random() % 3),
                     .ip_options = static_cast<unsigned>(f.random() % 11 * 4),
                     .tcp_options = static_cast<unsigned>(f.random() % 11 * 4),
                     .payload = f.random() % 65'000 + 1,
                     .flags = static_cast<std::uint8_t>(f.random() & 0x7f)};
        if (tcp.ipv6)
            tcp.ip_options = 0;
        tcp.payload = std::min<std::size_t>(tcp.payload, 65'553 - tcp.data());
        const auto gso_size = static_cast<std::uint16_t>(48 + f.random() % (1518 - tcp.data() - 47));
        const Bytes bytes = tcp.build(f.random);
        f.device.sent.clear();
        REQUIRE(f.send(bytes, tcp.offload(gso_size), f.random() % 20 + 1));
        f.check_sent(f.software(bytes, tcp.offload(gso_size)));
    }
    CHECK(f.nic->counters().frames_sent == 300);
}

TEST_CASE("a TCP segmentation does not depend on the checksum that the sender left", "[net]") {
    Fixture f{each_kind()};
    f.start();
    const TcpFrame tcp{.payload = 5000};
    Bytes bytes = tcp.build(f.random);
    test::put16(bytes, tcp.tcp() + 16, 0x1234);
    test::put16(bytes, tcp.ip() + 2, 0x1234);
    test::put16(bytes, tcp.ip() + 10, 0x1234);
    REQUIRE(f.send(bytes, tcp.offload(1000)));
    REQUIRE(f.device.sent.size() == 5);
    for (const Bytes& segment : f.device.sent)
        CHECK(tcp.sums_right(segment));
}

TEST_CASE("offloads that make no sense are refused", "[net]") {
    Fixture f{each_kind()};
    f.start();
    const TcpFrame tcp{.payload = 5000};
    const Bytes good = tcp.build(f.random);
    Bytes bytes = good;
    FrameOffload offload = tcp.offload(1000);
    SECTION("the start lies too far behind") {
        bytes.resize(1000);
        offload.gso_type = 0;
        offload.checksum_start = 250;
    }
    SECTION("the checksum is behind the end") {
        bytes.resize(60);
        offload.gso_type = 0;
        offload.checksum_start = 43;
    }
    SECTION("another protocol") {
        bytes[tcp.ip() + 9] = 17;
    }
    SECTION("another type") {
        test::put16(bytes, 12, 0x86dd);
    }
    SECTION("IPv6 that is IPv4") {
        offload.gso_type = net::kGsoTcpV6;
    }
    SECTION("UDP segmentation") {
        offload.gso_type = 3;
    }
    SECTION("congestion notification") {
        offload.gso_type |= net::kGsoEcn;
    }
    SECTION("no checksum") {
        offload.needs_checksum = false;
    }
    SECTION("segments of no size") {
        offload.gso_size = 0;
    }
    SECTION("segments too long for the wire") {
        offload.gso_size = 1465;
    }
    SECTION("no payload") {
        bytes.resize(tcp.data());
    }
    SECTION("a header cut short") {
        bytes.resize(tcp.data() - 1);
    }
    SECTION("a TCP header that is too short") {
        bytes[tcp.tcp() + 12] = 0x40;
    }
    SECTION("TCP elsewhere") {
        offload.checksum_start += 4;
    }
    SECTION("too long") {
        bytes.resize(65'554);
    }
    CHECK_FALSE(f.send(bytes, offload));
    CHECK(f.device.sent.empty());
    CHECK(f.send(good, tcp.offload(1464)));
    CHECK(f.device.sent.size() == 4);
}

TEST_CASE("no frame makes the driver tell the device nonsense", "[net]") {
    Fixture f{each_kind()};
    f.start();
    unsigned taken = 0;
    for (unsigned round = 0; round < 6000; ++round) {
        const TcpFrame tcp{.ipv6 = f.random() % 2 == 0, .payload = f.random() % 4000};
        Bytes bytes = tcp.build(f.random);
        FrameOffload offload = tcp.offload(static_cast<std::uint16_t>(f.random() % 1500));
        for (unsigned i = f.random() % 3; i > 0; --i)
            bytes[f.random() % 80 % bytes.size()] = static_cast<std::uint8_t>(f.random());
        bytes.resize(f.random() % 4 == 0 ? f.random() % 200 + 14 : bytes.size());
        if (f.random() % 4 == 0)
            offload.checksum_start = static_cast<std::uint16_t>(f.random() % 300);
        if (f.random() % 4 == 0)
            offload.checksum_offset = static_cast<std::uint16_t>(f.random() % 300);
        if (f.random() % 4 == 0)
            offload.gso_type = static_cast<std::uint8_t>(f.random() % 6);
        taken += f.send(bytes, offload, f.random() % 4 + 1) ? 1 : 0;
        f.device.sent.clear();
    }
    CHECK(taken > 500);
}

TEST_CASE("offloads are what the kind has and the caller allows", "[net]") {
    Fixture f{each_kind()};
    f.start();
    CHECK(f.nic->offloads().checksum);
    CHECK(f.nic->offloads().tcp4);
    CHECK(f.nic->offloads().tcp6 == (f.kind == Kind::i82574));
    CHECK_FALSE(f.nic->offloads().ecn);
    f.nic.reset();
    f.steps.skip(2'000'000);
    f.start(kNothing);
    CHECK_FALSE(f.nic->offloads().checksum);
    CHECK_FALSE(f.nic->offloads().tcp4);
    const TcpFrame tcp{.payload = 100};
    const Bytes finished = f.software(tcp.build(f.random), tcp.offload(0))[0].bytes;
    REQUIRE(f.device.receive(finished));
    f.nic->service();
    REQUIRE(f.sink.frames.size() == 1);
    CHECK_FALSE(f.sink.frames[0].offload.data_valid);
}

TEST_CASE("what arrives is handed on, with what the device says of its checksum", "[net]") {
    Fixture f{each_kind()};
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
    Fixture f{each_kind()};
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
    Fixture f{each_kind()};
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
    Fixture f{each_kind()};
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
    Fixture f{each_kind()};
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
    Fixture f{each_kind()};
    f.start();
    f.device.keeps_fcs = true;
    Bytes bytes = f.random_bytes(1518);
    REQUIRE(f.device.receive(bytes));
    f.nic->service();
    REQUIRE(f.sink.frames.size() == 1);
    bytes.resize(1522, 0xfc);
    CHECK(f.sink.frames[0].bytes == bytes);
}

TEST_CASE("a flood of frames does not keep the CPU", "[net]") {
    Fixture f{each_kind()};
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
    Fixture f{each_kind()};
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

TEST_CASE("the link's changes are seen", "[net]") {
    Fixture f{each_kind()};
    f.start();
    CHECK(f.nic->link_up());
    f.device.set_link(false);
    CHECK(f.device.interrupt());
    CHECK(f.nic->link_up());
    f.nic->service();
    CHECK_FALSE(f.nic->link_up());
    f.device.set_link(true);
    f.nic->service();
    CHECK(f.nic->link_up());
}

TEST_CASE("a device that sends nothing any more is reset and works again", "[net]") {
    Fixture f{each_kind()};
    f.start();
    const auto ms = [](std::uint64_t milliseconds) { return milliseconds * 1'000'000; };
    f.device.master_sticks = GENERATE(false, true);
    f.device.hung = true;
    REQUIRE(f.send(Bytes(60, 1)));
    f.steps.run_for(ms(3900));
    CHECK(f.device.resets == 1);
    CHECK(f.nic->counters().resets == 0);
    f.steps.run_for(ms(105));  // 4 s and its first step
    CHECK(f.nic->counters().resets == 1);
    CHECK_FALSE(f.send(Bytes(60, 2)));
    CHECK_FALSE(f.device.receive(Bytes(60)));
    f.steps.run_for(ms(150));
    CHECK(f.device.resets == 2);
    CHECK(f.steps.idle());
    CHECK(f.send(Bytes(60, 3)));
    REQUIRE(f.device.sent.size() == 1);
    CHECK(f.device.sent[0] == Bytes(60, 3));
    REQUIRE(f.device.receive(Bytes(60, 4)));
    CHECK(f.device.interrupt());
    f.nic->service();
    CHECK(f.sink.frames.size() == 1);
    CHECK(f.nic->link_up());
    f.steps.run_for(ms(10'000));
    CHECK(f.nic->counters().resets == 1);
    CHECK(f.steps.idle());
}

TEST_CASE("a device that hangs again and again is reset each time", "[net]") {
    Fixture f{each_kind()};
    f.start();
    f.device.reset_cures = false;
    for (unsigned i = 1; i <= 5; ++i) {
        f.device.hung = true;
        REQUIRE(f.send(Bytes(60)));
        f.steps.run_for(4'100'000'000);
        CHECK(f.nic->counters().resets == i);
    }
}

TEST_CASE("slow progress, or a link that is down, is no reason for a reset", "[net]") {
    Fixture f{each_kind()};
    f.start();
    for (unsigned i = 0; i < 5; ++i) {
        f.device.hung = true;
        REQUIRE(f.send(Bytes(60)));
        f.steps.run_for(3'000'000'000);
        f.device.go_on();
    }
    CHECK(f.device.sent.size() == 5);
    f.device.hung = true;
    REQUIRE(f.send(Bytes(60)));
    f.device.set_link(false);
    f.nic->service();
    f.steps.run_seconds(20);
    CHECK(f.nic->counters().resets == 0);
    f.device.set_link(true);
    f.device.go_on();
    f.steps.run_seconds(3);
    CHECK(f.nic->counters().resets == 0);
    CHECK(f.steps.idle());
}

TEST_CASE("a reset waits for the CPU that still receives", "[net]") {
    Fixture f{each_kind()};
    f.start();
    f.device.hung = true;
    REQUIRE(f.send(Bytes(60)));
    REQUIRE(f.device.receive(Bytes(60)));
    f.sink.on_frame = [&] {
        f.steps.run_seconds(6);
        CHECK(f.nic->counters().resets == 1);
        CHECK(f.device.resets == 1);
        CHECK_FALSE(f.send(Bytes(60)));
    };
    f.nic->service();
    CHECK(f.sink.frames.size() == 1);
    f.sink.on_frame = nullptr;
    f.steps.run_for(30'000'000);
    CHECK(f.device.resets == 2);
    CHECK(f.send(Bytes(60)));
}

TEST_CASE("a device that vanished is given up", "[net]") {
    Fixture f{each_kind()};
    f.start();
    f.device.hung = true;
    REQUIRE(f.send(Bytes(60)));
    SECTION("as its interrupt shows") {
        f.device.vanished = true;
        f.nic->service();
    }
    SECTION("as the watch shows") {
        f.device.vanished = true;
        f.steps.run_seconds(3);
    }
    SECTION("during a reset") {
        f.steps.run_for(4'005'000'000);
        f.device.vanished = true;
        f.steps.run_seconds(3);
    }
    SECTION("for its reset does not end") {
        f.device.reset_sticks = true;
        f.steps.run_seconds(10);
    }
    CHECK_FALSE(f.nic->link_up());
    CHECK_FALSE(f.send(Bytes(60)));
    f.nic->service();
    f.steps.run_seconds(10);
    CHECK(f.steps.idle());
    CHECK(f.nic->counters().no_room == 0);
}
