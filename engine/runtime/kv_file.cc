#include "engine/runtime/kv_file.h"

#include <xxhash.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/runtime/byte_codec.h"

namespace fermata {
namespace {

constexpr absl::string_view kMagic("FERMATAK", 8);
constexpr uint64_t kMostHeadBytes = uint64_t{1} << 30;

// What the first kKvFileHeaderBytes say.
struct Header {
  uint64_t record_bytes = 0;
  uint64_t block_count = 0;
  uint64_t block_bytes = 0;
  uint64_t record_checksum = 0;  // of record and checksums

  uint64_t head_bytes() const { return kKvFileHeaderBytes + record_bytes + block_count * sizeof(uint64_t); }
};

uint64_t Checksum(absl::string_view bytes) { return XXH3_64bits(bytes.data(), bytes.size()); }

std::string EncodeHeader(const Header& header) {
  ByteWriter writer;
  for (const char c : kMagic) writer.Number(c);
  writer.Number(kKvFileVersion);
  writer.Number(uint32_t{0});
  writer.Number(header.record_bytes);
  writer.Number(header.block_count);
  writer.Number(header.block_bytes);
  writer.Number(header.record_checksum);
  std::string bytes = writer.Take();
  bytes.resize(kKvFileHeaderBytes - sizeof(uint64_t));
  const uint64_t checksum = Checksum(bytes);
  bytes.append(reinterpret_cast<const char*>(&checksum), sizeof(checksum));
  return bytes;
}

absl::StatusOr<Header> DecodeHeader(absl::string_view bytes, int64_t file_bytes) {
  if (bytes.size() < static_cast<size_t>(kKvFileHeaderBytes))
    return absl::DataLossError("it is torn: it has no header");
  bytes = bytes.substr(0, kKvFileHeaderBytes);
  if (bytes.substr(0, kMagic.size()) != kMagic) return absl::InvalidArgumentError("it is no parked generation");
  ByteReader reader(bytes.substr(kMagic.size()));
  const auto version = reader.Number<uint32_t>();
  reader.Number<uint32_t>();
  Header header;
  header.record_bytes = reader.Number<uint64_t>();
  header.block_count = reader.Number<uint64_t>();
  header.block_bytes = reader.Number<uint64_t>();
  header.record_checksum = reader.Number<uint64_t>();
  ByteReader end(bytes.substr(kKvFileHeaderBytes - sizeof(uint64_t)));
  if (end.Number<uint64_t>() != Checksum(bytes.substr(0, kKvFileHeaderBytes - sizeof(uint64_t)))) {
    return absl::DataLossError("its header has a wrong checksum");
  }
  if (version != kKvFileVersion) {
    return absl::InvalidArgumentError(
        absl::StrCat("it is of version ", version, "; version ", kKvFileVersion, " can be read"));
  }
  const bool sane = header.record_bytes <= kMostHeadBytes && header.block_count <= kMostHeadBytes &&
                    header.block_bytes <= kMostHeadBytes;
  if (!sane) return absl::DataLossError("its header has impossible sizes");
  const int64_t expected = KvFileDataOffset(static_cast<int64_t>(header.head_bytes())) +
                           static_cast<int64_t>(header.block_count * header.block_bytes);
  if (file_bytes != expected) {
    return absl::DataLossError(absl::StrCat("it is torn: it has ", file_bytes, " bytes of ", expected));
  }
  return header;
}

void Put(const GenerationSpec& spec, ByteWriter& to) {
  const SamplingParams& sampling = spec.sampling;
  to.Number(sampling.max_tokens);
  to.Number(sampling.temperature);
  to.Number(sampling.top_k);
  to.Number(sampling.top_p);
  to.Number(sampling.min_p);
  to.Number(sampling.repetition_penalty);
  to.Number(sampling.frequency_penalty);
  to.Number(sampling.presence_penalty);
  to.Number(sampling.seed);
  to.Number(static_cast<uint8_t>(sampling.ignore_eos));
  to.Number(static_cast<uint64_t>(sampling.stop.size()));
  for (const std::string& stop : sampling.stop) to.String(stop);
  to.Numbers(sampling.stop_token_ids);
  to.Number(static_cast<uint64_t>(sampling.logit_bias.size()));
  for (const auto& [token, bias] : sampling.logit_bias) {
    to.Number(token);
    to.Number(bias);
  }
  to.Number(sampling.logprobs);
  to.Number(spec.priority);
  to.String(spec.tenant);
  to.String(spec.traffic_class);
  to.Number(static_cast<uint64_t>(spec.labels.size()));
  for (const auto& [key, value] : spec.labels) {
    to.String(key);
    to.String(value);
  }
  to.Duration(spec.timeout);
  to.Number(spec.on_disconnect);
  to.Number(static_cast<uint8_t>(spec.hold_on_stop));
}

GenerationSpec GetSpec(ByteReader& from) {
  GenerationSpec spec;
  SamplingParams& sampling = spec.sampling;
  sampling.max_tokens = from.Number<int32_t>();
  sampling.temperature = from.Number<float>();
  sampling.top_k = from.Number<int32_t>();
  sampling.top_p = from.Number<float>();
  sampling.min_p = from.Number<float>();
  sampling.repetition_penalty = from.Number<float>();
  sampling.frequency_penalty = from.Number<float>();
  sampling.presence_penalty = from.Number<float>();
  sampling.seed = from.Number<uint64_t>();
  sampling.ignore_eos = from.Bool();
  for (auto n = from.Number<uint64_t>(); n > 0 && from.ok(); --n) sampling.stop.push_back(from.String());
  sampling.stop_token_ids = from.Numbers<TokenId>();
  for (auto n = from.Number<uint64_t>(); n > 0 && from.ok(); --n) {
    const auto token = from.Number<TokenId>();
    sampling.logit_bias.emplace_back(token, from.Number<float>());
  }
  sampling.logprobs = from.Number<int32_t>();
  spec.priority = from.Number<int32_t>();
  spec.tenant = from.String();
  spec.traffic_class = from.String();
  for (auto n = from.Number<uint64_t>(); n > 0 && from.ok(); --n) {
    std::string key = from.String();
    spec.labels.emplace_back(std::move(key), from.String());
  }
  spec.timeout = from.Duration();
  spec.on_disconnect = from.Enum<OnDisconnect>(3);
  spec.hold_on_stop = from.Bool();
  return spec;
}

void Put(const Usage& usage, ByteWriter& to) {
  for (const int64_t count :
       {usage.prompt_token_count, usage.cached_token_count, usage.appended_token_count, usage.prefilled_token_count,
        usage.recomputed_token_count, usage.output_token_count, usage.preemption_count, usage.pause_count}) {
    to.Number(count);
  }
  for (const absl::Duration d : {usage.queued_duration, usage.running_duration, usage.paused_duration}) to.Duration(d);
}

Usage GetUsage(ByteReader& from) {
  Usage usage;
  for (int64_t* count :
       {&usage.prompt_token_count, &usage.cached_token_count, &usage.appended_token_count, &usage.prefilled_token_count,
        &usage.recomputed_token_count, &usage.output_token_count, &usage.preemption_count, &usage.pause_count}) {
    *count = from.Number<int64_t>();
  }
  for (absl::Duration* d : {&usage.queued_duration, &usage.running_duration, &usage.paused_duration}) {
    *d = from.Duration();
  }
  return usage;
}

std::string EncodeRecord(const KvFileHead& head) {
  const ParkedGeneration& parked = head.parked;
  ByteWriter to;
  to.String(head.fingerprint);
  to.String(parked.id.value());
  to.String(parked.body_digest);
  Put(parked.spec, to);
  to.Numbers(parked.context);
  to.Number(static_cast<uint64_t>(parked.appended.size()));
  for (const TokenRange& range : parked.appended) {
    to.Number(range.begin);
    to.Number(range.end);
  }
  to.String(parked.append_id);
  to.Numbers(parked.text_begins);
  to.Number(parked.computed_token_count);
  to.Number(parked.held_finish);
  Put(parked.usage, to);
  to.String(parked.pause_reason);
  to.Duration(parked.lease);
  to.Number(parked.on_lease_expiry);
  to.String(parked.session_id);
  to.Duration(parked.session_ttl);
  to.Time(parked.create_time);
  to.Time(parked.start_time);
  return to.Take();
}

absl::StatusOr<KvFileHead> DecodeRecord(absl::string_view bytes) {
  KvFileHead head;
  ParkedGeneration& parked = head.parked;
  ByteReader from(bytes);
  head.fingerprint = from.String();
  absl::StatusOr<GenerationId> id = GenerationId::Parse(from.String());
  if (!id.ok()) return absl::DataLossError(absl::StrCat("its id is none: ", id.status().message()));
  parked.id = *std::move(id);
  parked.body_digest = from.String();
  parked.spec = GetSpec(from);
  parked.context = from.Numbers<TokenId>();
  for (auto n = from.Number<uint64_t>(); n > 0 && from.ok(); --n) {
    const auto begin = from.Number<int32_t>();
    parked.appended.push_back({begin, from.Number<int32_t>()});
  }
  parked.append_id = from.String();
  parked.text_begins = from.Numbers<int32_t>();
  parked.computed_token_count = from.Number<int32_t>();
  parked.held_finish = from.Enum<FinishReason>(3);
  parked.usage = GetUsage(from);
  parked.pause_reason = from.String();
  parked.lease = from.Duration();
  parked.on_lease_expiry = from.Enum<OnLeaseExpiry>(2);
  parked.session_id = from.String();
  parked.session_ttl = from.Duration();
  parked.create_time = from.Time();
  parked.start_time = from.Time();
  if (!from.ok() || from.left() > 0) return absl::DataLossError("its record is not complete");
  return head;
}

}  // namespace

int64_t KvFileDataOffset(int64_t head_bytes) {
  return (head_bytes + kKvFileAlignment - 1) / kKvFileAlignment * kKvFileAlignment;
}

std::string EncodeKvFileHead(const KvFileHead& head) {
  std::string rest = EncodeRecord(head);
  Header header = {.record_bytes = rest.size(),
                   .block_count = head.block_checksums.size(),
                   .block_bytes = static_cast<uint64_t>(head.block_bytes)};
  rest.append(reinterpret_cast<const char*>(head.block_checksums.data()),
              head.block_checksums.size() * sizeof(uint64_t));
  header.record_checksum = Checksum(rest);
  return EncodeHeader(header) + rest;
}

absl::StatusOr<int64_t> KvFileHeadBytes(absl::string_view header, int64_t file_bytes) {
  const absl::StatusOr<Header> decoded = DecodeHeader(header, file_bytes);
  if (!decoded.ok()) return decoded.status();
  return static_cast<int64_t>(decoded->head_bytes());
}

absl::StatusOr<KvFileHead> DecodeKvFileHead(absl::string_view bytes, int64_t file_bytes) {
  const absl::StatusOr<Header> header = DecodeHeader(bytes, file_bytes);
  if (!header.ok()) return header.status();
  if (bytes.size() < header->head_bytes()) return absl::DataLossError("it is torn: its record is not complete");
  const absl::string_view rest = bytes.substr(kKvFileHeaderBytes, header->head_bytes() - kKvFileHeaderBytes);
  if (Checksum(rest) != header->record_checksum) return absl::DataLossError("its record has a wrong checksum");
  absl::StatusOr<KvFileHead> head = DecodeRecord(rest.substr(0, header->record_bytes));
  if (!head.ok()) return head.status();
  head->block_bytes = static_cast<int64_t>(header->block_bytes);
  head->block_checksums.resize(header->block_count);
  if (header->block_count > 0) {
    std::memcpy(head->block_checksums.data(), rest.data() + header->record_bytes,
                header->block_count * sizeof(uint64_t));
  }
  return head;
}

uint64_t KvChecksum(absl::Span<const std::byte> bytes) { return XXH3_64bits(bytes.data(), bytes.size()); }

}  // namespace fermata
