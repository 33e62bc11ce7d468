#include "hip/decode_rows.h"

#include <utility>

#include "formats/registry.h"

namespace rocforge::gpu {
namespace {

using DecodeShard = void (*)(int format, OutType out_type, const DecodeRows &work, void *stream);

template <int... shards> DecodeShard shard_at(int index, std::integer_sequence<int, shards...>) {
  constexpr DecodeShard kShards[] = {decode_shard<shards>...};
  return kShards[index];
}

// Whether every block begins at a multiple of the largest power of two, up to 16, that divides its size (of eight plain
// values): the promise behind load<T, kAlign> in csrc/formats.
bool aligned(const RowMap &map, const formats::FormatInfo &format) {
  const int64_t bytes = format.block_size == 1 ? 8 * format.block_bytes : format.block_bytes;
  const int64_t align = (bytes | 16) & -(bytes | 16);
  int64_t bits = reinterpret_cast<intptr_t>(map.first);
  for (int dim = 0; dim < map.dims; ++dim) bits |= map.strides[dim];
  return bits % align == 0;
}

// The same work; rows that follow each other without a gap become one.
DecodeRows joined(DecodeRows work, const formats::FormatInfo &format) {
  const int64_t row_bytes = work.weights / format.block_size * format.block_bytes;
  if (!work.map.indices && work.map.dims == 1 && work.map.strides[0] == row_bytes) {
    work.weights *= work.rows;
    work.rows = 1;
    work.map.strides[0] = 0;
  }
  return work;
}

}  // namespace

void decode_rows(int format, OutType out_type, const DecodeRows &rows, void *stream) {
  const DecodeRows work = joined(rows, formats::kFormats[format]);
  const int pair = format % (kDecodeShards / 2), odd = aligned(work.map, formats::kFormats[format]) ? 0 : 1;
  shard_at(2 * pair + odd, std::make_integer_sequence<int, kDecodeShards>())(format, out_type, work, stream);
}

}  // namespace rocforge::gpu
